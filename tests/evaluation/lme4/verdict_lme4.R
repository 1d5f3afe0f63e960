# Recomputes verdicts with mixed models. What tests/evaluation/test_verdict_lme4.py compares with was written by
#   cd tests/evaluation/lme4
#   Rscript verdict_lme4.R equal-scores.csv two-scores.csv ../../../benchmarks/results/hippocampus-scores.csv \
#     ../../../evidence/results/hippocampus/scores.csv@posterior > verdict_lme4.csv
# with R 4.2.2, lme4 1.1-31, emmeans 1.8.4 and pbkrtest 0.5.2 (Debian: r-cran-lme4, r-cran-emmeans, r-cran-pbkrtest).
# An exported study's scores.csv takes the class behind an @: evidence/results/NAME/scores.csv@infarct.
#
# A table has the columns loss, fold, case, dice and perhaps seed, over which values are averaged. The model is
#   dice = loss + fold + case + (loss in fold) + residual,  loss fixed, the others random, one variance for all losses,
# fitted by REML, and the differences are those of estimated marginal means, with Kenward and Roger's degrees of
# freedom and Tukey's simultaneous intervals.
suppressMessages({
  library(lme4)
  library(emmeans)
})
emm_options(lmer.df = "kenward-roger")
cat("scores,first,second,difference,standard_error,degrees,low,high\n")
for (argument in commandArgs(trailingOnly = TRUE)) {
  words <- strsplit(argument, "@")[[1]]
  path <- words[1]
  scores <- read.csv(path, colClasses = c(loss = "character", case = "character"), na.strings = "")
  if (length(words) > 1) scores <- scores[scores$class == words[2] & !is.na(scores$dice), ]
  scores <- aggregate(dice ~ loss + fold + case, scores, mean)
  scores$fold <- factor(scores$fold)
  fit <- lmer(
    dice ~ loss + (1 | fold) + (1 | case) + (1 | fold:loss), scores, REML = TRUE,
    control = lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-12, maxfun = 1e6), calc.derivs = FALSE)
  )
  pairs <- as.data.frame(confint(pairs(emmeans(fit, "loss")), adjust = "tukey"))
  for (row in seq_len(nrow(pairs))) {
    names <- strsplit(as.character(pairs$contrast[row]), " - ")[[1]]
    numbers <- sprintf("%.10g", unlist(pairs[row, c("estimate", "SE", "df", "lower.CL", "upper.CL")]))
    name <- if (length(words) > 1) paste0("evidence-", basename(dirname(path))) else sub("-scores.csv$", "", basename(path))
    cat(name, gsub("[()]", "", names), numbers, sep = ",")
    cat("\n")
  }
}
