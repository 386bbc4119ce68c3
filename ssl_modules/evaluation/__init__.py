"""Pure functions that judge a representation."""

from ssl_modules.evaluation.accuracy import top_k_accuracy
from ssl_modules.evaluation.knn import knn_scores
from ssl_modules.evaluation.linear import ridge_classifier

__all__ = ["knn_scores", "ridge_classifier", "top_k_accuracy"]
