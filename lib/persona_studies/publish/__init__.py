"""What others get: README blocks, the site, datasheets, releases and the hub."""
