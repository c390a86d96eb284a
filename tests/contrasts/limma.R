# Writes limma.csv beside it: counts of 16 samples and 80 genes, and what edgeR and limma say of them.
# Rscript tests/contrasts/limma.R (r-bioc-edger, r-bioc-limma); from counts that it draws itself.
suppressMessages({library(edgeR); library(limma)})
set.seed(1)
genes <- 80
condition <- rep(c("control", "a", "b"), c(6, 5, 5))
batch <- rep(0:1, 8)
change <- cbind(control = 0, a = c(rep(2, 8), rep(0, 72)), b = c(rep(0, 8), rep(-1.5, 8), rep(0, 64)))
level <- c(rlnorm(70, 5, 1), rlnorm(10, 0.5, 1))
depth <- rlnorm(16, 0, 0.4)
means <- level * 2^(change[, condition] + outer(rnorm(genes, 0, 0.3), batch)) * rep(depth, each = genes)
counts <- matrix(rnbinom(genes * 16, mu = means, size = 10), genes)

kept <- filterByExpr(counts, group = condition, min.count = 10)
tested <- counts[kept, ]
# Sizes of libraries by median ratios (Anders and Huber 2010), as DESeq2 takes them.
positive <- tested[rowSums(tested == 0) == 0, ]
ratios <- log(positive) - rowMeans(log(positive))
factors <- exp(apply(ratios, 2, median))
totals <- colSums(tested)
mean.of <- function(x) exp(mean(log(x)))
y <- DGEList(tested, lib.size = factors / mean.of(factors) * mean.of(totals))
design <- model.matrix(~ factor(condition, c("control", "a", "b")) + batch)
fit <- eBayes(lmFit(cpm(y, log = TRUE, prior.count = 2), design), trend = TRUE)

out <- data.frame(counts)
names(out) <- make.unique(paste0(condition, "_", batch), sep = "_")
for (i in 2:3) {
    case <- c("a", "b")[i - 1]
    for (part in c("coefficients", "t", "p.value")) {
        values <- fit[[part]][, i]
        if (part == "p.value") values <- p.adjust(values, "BH")
        out[kept, paste0(part, ".", case)] <- signif(values, 10)
    }
}
arguments <- commandArgs()
here <- dirname(sub("--file=", "", grep("--file=", arguments, value = TRUE)))
target <- file.path(here, "limma.csv")
writeLines(paste0("# R ", getRversion(), ", edgeR ", packageVersion("edgeR"), ", limma ", packageVersion("limma"),
    ": limma.R; moderated t and adjusted p of a and b against control, batch as covariate"), target)
suppressWarnings(write.table(out, target, sep = ",", append = TRUE, row.names = FALSE, quote = FALSE, na = ""))
