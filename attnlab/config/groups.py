"""Groups: what each of the config groups may be, in one table. Everything else that depends on a group reads it here."""

# groups with several choices: files keyed by their own name; order is kept in the address, since it can matter
PLACED = ("attention", "regularizer")

KEYED = (*PLACED, "ood")

FLAT = ("data", "model", "loss", "optimizer", "schedule", "trainer", "logger")

KEYS = ("at", "how", "reads", "writes", "module")

HOWS = ("after", "before", "replace")
