def attack(report, *, seed):
    pass
