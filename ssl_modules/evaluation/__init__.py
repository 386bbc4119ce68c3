"""Pure functions that judge a representation."""

from ssl_modules.evaluation.accuracy import top_k_accuracy
from ssl_modules.evaluation.knn import knn_scores
from ssl_modules.evaluation.linear import ridge_classifier
from ssl_modules.evaluation.retrieval import retrieval

__all__ = ["knn_scores", "retrieval", "ridge_classifier", "top_k_accuracy"]
