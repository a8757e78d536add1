"""POTO + 3DMF + Aux: a second, one-to-many classification loss on the unfiltered logits, in training only."""

from detectron2.config import LazyCall as L

from la_det.config import named
from la_det.matchers import POTOAux
from la_det.modeling.criteria import Criterion, FocalLoss

from .poto_3dmf import model

model.criteria.append(L(Criterion)(matcher=L(POTOAux)(), losses=L(named)(loss_cls_aux=L(FocalLoss)())))
