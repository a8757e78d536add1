"""POTO on distinct queries: its locations are those that one NMS, whatever the classes, leaves of the best ones."""

from detectron2.config import LazyCall as L

from la_det.modeling.query_inference import QueryInference
from la_det.steps.queries import DistinctQueries

from .poto import model

model.criteria[0].queries = L(DistinctQueries)(topk=1000, nms_threshold=0.7)
model.inference = L(QueryInference)(queries=L(DistinctQueries)(topk=1000, nms_threshold=0.7), nms_threshold=None)
