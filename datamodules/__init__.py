"""A LightningDataModule per dataset."""

if __name__ == "datamodules":
    raise ImportError("import ssl_modules.datamodules: this folder is a part of ssl_modules, not a package of its own")
