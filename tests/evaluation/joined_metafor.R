# What tests/evaluation/test_joined.py compares with: Rscript joined_metafor.R > joined_metafor.csv
# Written with R 4.2.2 and metafor 3.8-1 (Debian: r-cran-metafor).
suppressMessages(library(metafor))
sets <- list(
  five = list(y = c(0.021, -0.008, 0.055, 0.012, 0.034), s = c(0.010, 0.015, 0.020, 0.008, 0.012)),
  homogeneous = list(y = c(0.010, 0.012, 0.008), s = c(0.010, 0.030, 0.020)),
  two = list(y = c(0.05, 0.01), s = c(0.010, 0.012)),
  scattered = list(
    y = c(0.30, -0.20, 0.05, 0.11, -0.02, 0.4, 0.015), s = c(0.02, 0.03, 0.01, 0.05, 0.015, 0.08, 0.004)
  ),
  tiny = list(y = c(2e-5, -1e-5, 4e-5, 1e-5, 6e-5, 3e-5), s = c(1e-5, 1e-5, 2e-5, 3e-6, 2e-5, 1e-4))
)
cat("set,y,s,mean,standard_error,tau2,low,high,Q,p_Q,tau2_low,tau2_high\n")
for (name in names(sets)) {
  y <- sets[[name]]$y
  s <- sets[[name]]$s
  r <- rma(yi = y, sei = s, method = "PM", test = "adhoc", control = list(tol = 1e-16, maxiter = 10000, tau2.max = 1e6))
  profile <- confint(r, control = list(tol = 1e-16, maxiter = 10000, tau2.max = 1e6))$random["tau^2", ]
  numbers <- c(r$b, r$se, r$tau2, r$ci.lb, r$ci.ub, r$QE, r$QEp, profile["ci.lb"], profile["ci.ub"])
  cat(name, paste(y, collapse = " "), paste(s, collapse = " "), sprintf("%.12g", numbers), sep = ",")
  cat("\n")
}
