"""Answers to figures. Plain Python; the stage that answers the questions is `ragray.stages.evaluate`."""
