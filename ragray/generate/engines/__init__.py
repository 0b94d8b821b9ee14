"""Models that write: the runners behind `ragray.generate.engine.Engine`."""
