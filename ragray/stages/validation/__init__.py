"""What a validation measures, and with what; `ragray.train.validation` keeps the account of it."""
