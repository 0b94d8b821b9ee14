"""Fine-tuning of question encoder and generator. Knows no Ray; `ragray.cluster.train` runs it on Ray Train."""
