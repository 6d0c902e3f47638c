"""What others get: README blocks, the site, datasheets, releases and the hub.

Other wings, studies and notebooks import the modules named here; the rest is the wing's own.
"""

__all__ = ["hub", "new", "readme", "report_card", "report_page", "site"]
