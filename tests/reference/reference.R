# Reference values for tests/analyse/test_stats_*.py, from packages or formulas that share no code with the library.
# Run in this folder: Rscript reference.R
suppressPackageStartupMessages({
  library(jsonlite); library(psych); library(metafor); library(effectsize); library(pwr)
  library(vcd)
})
set.seed(20260410)
RNGkind(sample.kind = "Rejection")

write <- function(value, name) {
  json <- toJSON(value, digits = I(15), auto_unbox = TRUE, na = "null", dataframe = "rows", matrix = "rowmajor")
  writeLines(json, paste0(name, ".json"))
}

# --- Correction over a family: p.adjust ---------------------------------------------------------------------------
families <- lapply(1:120, function(i) {
  p <- round(runif(sample(1:20, 1))^sample(1:4, 1), sample(2:6, 1))
  if (i %% 3 == 0) p <- sample(c(p, 0, 1, p[1], 0.05, 0.05 / 2))
  list(p = I(p), holm = I(p.adjust(p, "holm")), bonferroni = I(p.adjust(p, "bonferroni")),
       fdr_bh = I(p.adjust(p, "BH")))
})
write(families, "multiplicity")

# --- Paired proportions -------------------------------------------------------------------------------------------
# Mid-p by summing binomial probabilities.
midp_tail <- function(x, m, p) sum(dbinom(seq_len(x) - 1, m, p)) + dbinom(x, m, p) / 2
# Tango's statistic with the nuisance probability found by maximising the multinomial likelihood numerically,
# not by his quadratic.
tango_z <- function(delta, b, c, n) {
  concordant <- n - b - c
  lowest <- max(0, -delta)
  highest <- (1 - delta) / 2
  xlogy <- function(x, y) ifelse(x == 0, 0, x * log(y))
  likelihood <- function(q) xlogy(b, q + delta) + xlogy(c, q) + xlogy(concordant, 1 - 2 * q - delta)
  q <- optimize(likelihood, c(lowest, highest), maximum = TRUE, tol = 1e-15)$maximum
  ends <- c(lowest, highest, q)
  q <- ends[which.max(sapply(ends, likelihood))]
  (b - c - n * delta) / sqrt(n * (2 * q + delta - delta^2))
}
tango_limits <- function(b, c, n, level) {
  z <- qnorm((1 + level) / 2)
  estimate <- (b - c) / n
  lower <- if (c == n) -1 else
    uniroot(function(d) tango_z(d, b, c, n) - z, c(-1 + 1e-9, estimate - 1e-9), tol = 1e-13)$root
  upper <- if (b == n) 1 else
    uniroot(function(d) tango_z(d, b, c, n) + z, c(estimate + 1e-9, 1 - 1e-9), tol = 1e-13)$root
  c(lower, upper)
}
pairs <- list(c(1, 7, 21), c(40, 20, 160), c(0, 1, 44), c(10, 3, 50), c(0, 0, 30), c(5, 0, 12), c(0, 9, 20),
              c(8, 8, 40), c(120, 95, 1000), c(431, 388, 4950), c(1, 0, 1), c(3, 2, 5))
write(lapply(pairs, function(t) {
  b <- t[1]; c <- t[2]; n <- t[3]
  tost <- c(1 - pnorm(tango_z(-0.1, b, c, n)), pnorm(tango_z(0.1, b, c, n)))
  list(b = b, c = c, n = n, p = min(1, 2 * midp_tail(min(b, c), b + c, 0.5)), tango = tango_limits(b, c, n, 0.95),
       tango90 = tango_limits(b, c, n, 0.90), margin = 0.1, p_lower = tost[1], p_upper = tost[2])
}), "paired")

# --- Sign flips: every sign pattern -------------------------------------------------------------------------------
flips <- function(d) {
  signs <- as.matrix(expand.grid(rep(list(c(-1, 1)), length(d))))
  all <- abs(signs %*% d)
  mean(all >= abs(sum(d)) - 1e-9)
}
write(lapply(1:8, function(i) {
  d <- round(rnorm(10, 0.3 * (i %% 3)), 1)
  cluster <- sample(letters[1:6], 10, replace = TRUE)
  list(differences = d, cluster = cluster, p = flips(d), p_cluster = flips(tapply(d, cluster, sum)))
}), "sign_flip")

# --- Correlations -------------------------------------------------------------------------------------------------
write(lapply(c(4, 5, 12, 55, 275), function(n) {
  x <- rnorm(n); y <- round(0.5 * x + rnorm(n), if (n > 20) 1 else 3)
  pearson <- cor.test(x, y)
  spearman <- suppressWarnings(cor.test(x, y, method = "spearman", exact = FALSE))
  rho <- unname(spearman$estimate)
  half <- qnorm(0.975) * sqrt((1 + rho^2 / 2) / (n - 3))
  r <- unname(pearson$estimate)
  z <- (atanh(r) + c(1, -1) * atanh(0.1)) * sqrt(n - 3)
  limits <- tanh(atanh(r) + c(-1, 1) * qnorm(0.95) / sqrt(n - 3))
  list(x = x, y = y, r = r, p = pearson$p.value, ci = as.numeric(pearson$conf.int), rho = rho,
       rho_p = spearman$p.value, rho_ci = tanh(atanh(rho) + c(-1, 1) * half),
       tost = list(margin = 0.1, p_lower = pnorm(z[1], lower.tail = FALSE), p_upper = pnorm(z[2]), ci = limits))
}), "correlation")
# Power of the two-sided one-sample t test, both tails, and the sample size for power .80.
cases <- expand.grid(n = c(5, 10, 24, 100, 1000), delta = c(0.1, 0.3, 0.5, 1), alpha = c(0.05, 0.01, 0.05 / 34))
write(lapply(seq_len(nrow(cases)), function(i) with(cases[i, ], list(
  n = n, delta = delta, alpha = alpha,
  power = power.t.test(n = n, delta = delta, sig.level = alpha, type = "one.sample", strict = TRUE)$power,
  needed = power.t.test(power = 0.8, delta = delta, sig.level = alpha, type = "one.sample", strict = TRUE)$n))), "power_mean")

# The smallest correlation that has power .80, and the power for r = .10.
write(lapply(c(20, 55, 275, 1000), function(n) list(
  n = n, mde = pwr.r.test(n = n, power = 0.8, sig.level = 0.05)$r,
  power = pwr.r.test(n = n, r = 0.1, sig.level = 0.05)$power)), "power")

# --- Reliability: psych -------------------------------------------------------------------------------------------
write(lapply(1:6, function(i) {
  n <- c(60, 120, 275, 275, 500, 40)[i]; k <- c(3, 10, 10, 8, 20, 5)[i]
  factor <- rnorm(n)
  items <- round(sapply(seq_len(k), function(j) runif(1, 0.3, 1.2) * factor + rnorm(n, 0, runif(1, 0.5, 1.5))), 3)
  if (i == 4) items[, 1:2] <- -items[, 1:2]
  fit <- fa(items, nfactors = 1, fm = "minres")
  whole <- suppressWarnings(suppressMessages(omega(items, nfactors = 1, flip = FALSE, plot = FALSE)))
  loadings <- as.numeric(fit$loadings)
  list(items = items, loadings = loadings, omega = sum(loadings)^2 / (sum(loadings)^2 + sum(fit$uniquenesses)),
       omega_psych = whole$omega.tot,
       alpha = suppressWarnings(alpha(items, check.keys = FALSE))$total$raw_alpha)
}), "reliability")

# --- Random effects: metafor --------------------------------------------------------------------------------------
combine <- function(y, v) {
  one <- function(estimator, test) {
    fit <- rma(y, v, method = estimator, test = test, control = list(tol = 1e-12, maxiter = 1000))
    normal <- rma(y, v, method = estimator, control = list(tol = 1e-12, maxiter = 1000))
    k <- length(y)
    half <- if (k > 2) qt(0.975, k - 2) * sqrt(fit$tau2 + normal$se^2) else NA
    list(estimate = as.numeric(fit$beta), se = fit$se, low = fit$ci.lb, high = fit$ci.ub, p = fit$pval, tau2 = fit$tau2,
         q = fit$QE, q_p = fit$QEp, i2 = max(0, (fit$QE - (k - 1)) / fit$QE),
         prediction = as.numeric(fit$beta) + c(-1, 1) * half)
  }
  list(effects = y, variances = v, pm_hksj = one("PM", "knha"), pm_normal = one("PM", "z"),
       dl_hksj = one("DL", "knha"), dl_normal = one("DL", "z"))
}
write(c(lapply(c(2, 3, 6, 13, 25), function(k) {
  v <- runif(k, 0.003, 0.05)
  combine(rnorm(k, 0.3, sqrt(v + 0.04)), v)
}), list(combine(c(0.30, 0.31, 0.29, 0.305), c(0.02, 0.03, 0.02, 0.04)))), "meta_analysis")

# --- Hedges' g: effectsize ----------------------------------------------------------------------------------------
write(lapply(1:6, function(i) {
  x <- round(rnorm(c(5, 12, 137, 30, 8, 3)[i], c(1, 0.4, 1.9, 0, -3, 0)[i]), 3)
  y <- round(rnorm(c(5, 9, 138, 55, 8, 4)[i]), 3)
  g <- hedges_g(x, y, ci = 0.95)
  list(x = x, y = y, g = g$Hedges_g, low = g$CI_low, high = g$CI_high, p = t.test(x, y, var.equal = TRUE)$p.value)
}), "hedges_g")

# Draws of a method that is no longer here, so that those below stay as they are.
invisible(list(sample(300, 260), rnorm(15), runif(20), rnorm(15), rnorm(20), rnorm(260)))

# --- Calibration error, by its definition -------------------------------------------------------------------------
write(lapply(c(7, 40, 300), function(n) {
  p <- round(runif(n), 2); y <- rbinom(n, 1, p^1.5)
  ece <- function(bin) sum(sapply(split(seq_along(p), bin), function(i) length(i) / n * abs(mean(y[i]) - mean(p[i]))))
  list(probability = p, outcome = y, equal_width = ece(pmin(floor(p * 10), 9)))
}), "calibration")

# --- Agreement: vcd::Kappa; alpha and AC by their definitions, as loops over pairs of ratings -------------------
# All ordered pairs of ratings of one unit by different raters, with what a pair counts.
unit_pairs <- function(x) {
  x <- x[!is.na(x)]
  if (length(x) < 2) return(NULL)
  grid <- subset(expand.grid(i = seq_along(x), j = seq_along(x)), i != j)
  data.frame(a = x[grid$i], b = x[grid$j], share = 1 / (length(x) - 1), mean = 1 / nrow(grid))
}
agreement_weight <- function(a, b, kind, range) switch(kind, identity = as.numeric(a == b),
  linear = 1 - abs(a - b) / range, quadratic = 1 - (a - b)^2 / range^2)
raw_agreement <- function(x, kind, range) mean(unlist(lapply(seq_len(nrow(x)), function(i) {
  pairs <- unit_pairs(x[i, ])
  if (!is.null(pairs)) sum(pairs$mean * agreement_weight(pairs$a, pairs$b, kind, range))
})))
gwet <- function(x, kind, categories) {
  range <- max(categories) - min(categories); q <- length(categories)
  rated <- x[rowSums(!is.na(x)) > 0, ]
  share <- sapply(categories, function(k) mean(rowMeans(rated == k, na.rm = TRUE)))
  total <- sum(outer(categories, categories, function(a, b) agreement_weight(a, b, kind, range)))
  chance <- total / (q * (q - 1)) * sum(share * (1 - share))
  (raw_agreement(x, kind, range) - chance) / (1 - chance)
}
# Expected disagreement over all pairs of pairable ratings, whatever their unit.
alpha_by_pairs <- function(x, level) {
  pairs <- do.call(rbind, lapply(seq_len(nrow(x)), function(i) unit_pairs(x[i, ])))
  pairable <- unlist(lapply(seq_len(nrow(x)), function(i) if (sum(!is.na(x[i, ])) > 1) x[i, !is.na(x[i, ])]))
  difference <- function(a, b) switch(level, nominal = as.numeric(a != b), interval = (a - b)^2,
    ordinal = mapply(function(a, b) {
      between <- pairable >= min(a, b) & pairable <= max(a, b)
      (sum(between) - (sum(pairable == a) + sum(pairable == b)) / 2)^2
    }, a, b))
  observed <- sum(pairs$share * difference(pairs$a, pairs$b)) / length(pairable)
  all <- subset(expand.grid(i = seq_along(pairable), j = seq_along(pairable)), i != j)
  1 - observed / mean(difference(pairable[all$i], pairable[all$j]))
}
write(lapply(1:6, function(i) {
  n <- c(12, 30, 60, 25, 40, 60)[i]; raters <- c(2, 2, 2, 3, 4, 2)[i]; categories <- 0:4
  true <- sample(categories, n, replace = TRUE, prob = if (i == 6) c(0.02, 0.02, 0.02, 0.04, 0.9) else rep(1, 5))
  x <- sapply(seq_len(raters), function(j) pmin(4, pmax(0, true + sample(-2:2, n, TRUE, c(1, 3, 12, 3, 1)))))
  if (i >= 3) x[sample(length(x), round(length(x) / 8))] <- NA
  kinds <- c("identity", "linear", "quadratic"); levels <- c("nominal", "ordinal", "interval")
  both <- na.omit(x)
  table <- table(factor(both[, 1], categories), factor(both[, 2], categories))
  linear <- Kappa(table, weights = "Equal-Spacing"); quadratic <- Kappa(table, weights = "Fleiss-Cohen")
  kappa <- c(linear$Unweighted[["value"]], linear$Weighted[["value"]], quadratic$Weighted[["value"]])
  list(ratings = x, kappa = if (raters == 2) as.list(setNames(kappa, kinds)),
       raw = lapply(setNames(kinds, kinds), function(k) raw_agreement(x, k, 4)),
       gwet = lapply(setNames(kinds, kinds), function(k) gwet(x, k, categories)),
       alpha = lapply(setNames(levels, levels), function(l) alpha_by_pairs(x, l)))
}), "agreement")

writeLines(c(R.version.string, sapply(c("jsonlite", "psych", "metafor", "effectsize", "pwr", "vcd"),
  function(p)
  paste(p, packageVersion(p)))), "versions.txt")
