from la_det import model_zoo

model = model_zoo.get_config("common/models/fcos").model
