"""Stages: plan, execute, publish. Plain Python over an `Executor` (`ragray.execute.port`), which says where the work runs."""
