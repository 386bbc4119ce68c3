"""Pure functions that evaluate a representation."""

from ssl_modules.evaluation.accuracy import accuracies, mean_average_precision, top_k_accuracy
from ssl_modules.evaluation.collapse import alignment, feature_std, lidar, rankme, similarity_ratio, uniformity
from ssl_modules.evaluation.few_labels import balanced_rows, svm_scores
from ssl_modules.evaluation.knn import knn_scores, nearest_neighbours
from ssl_modules.evaluation.linear import ridge_classifier
from ssl_modules.evaluation.logistic import logistic_classifier, multilabel_logistic_classifier
from ssl_modules.evaluation.ood_metrics import (
    cosine_scores,
    detection,
    gaussian_scores,
    neighbour_scores,
    ood_detection,
)
from ssl_modules.evaluation.retrieval import retrieval
from ssl_modules.evaluation.sgd import SGD_RECIPES, SGDRecipe, sgd_classifier
from ssl_modules.evaluation.stored import StoredFeatures

__all__ = [
    "SGD_RECIPES",
    "SGDRecipe",
    "StoredFeatures",
    "accuracies",
    "alignment",
    "balanced_rows",
    "cosine_scores",
    "detection",
    "feature_std",
    "gaussian_scores",
    "knn_scores",
    "lidar",
    "logistic_classifier",
    "mean_average_precision",
    "multilabel_logistic_classifier",
    "nearest_neighbours",
    "neighbour_scores",
    "ood_detection",
    "rankme",
    "retrieval",
    "ridge_classifier",
    "sgd_classifier",
    "similarity_ratio",
    "svm_scores",
    "top_k_accuracy",
    "uniformity",
]
