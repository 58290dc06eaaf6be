C = dict(objective='category', clips=3000, steps=500, batch_size=24, lr=5e-4, warmup_steps=50)
N = dict(C, nce=True)
TRIALS = {
    'shipped': {},
    'shipped block 4': dict(layer=4),
    'shipped block 3': dict(layer=3),
    'shipped block 2': dict(layer=2),
    'swap parts': dict(C),
    'swap': dict(C, part_weight=0.0),
    'nce': dict(C, part_weight=0.0, nce=True),
    'nce parts': dict(N, part_weight=0.3),
    'nce light': dict(N, part_weight=0.0, toy_weight=0.3),
}
A = dict(N, alone=True, part_weight=0.0, range=0.25)
TRIALS |= {
    'alone': dict(A, steps=600),
    'alone parts': dict(A, part_weight=0.3),
    'alone swap': dict(A, nce=False),
}
A = dict(A, steps=600)
TRIALS |= {
    'alone fast': dict(A, lr=1e-3, masked=0.25),
    'alone fast parts': dict(A, lr=1e-3, masked=0.25, part_weight=0.3),
    'alone fast swap': dict(A, lr=1e-3, masked=0.25, nce=False),
    'alone fast fate': dict(A, lr=1e-3, masked=0.25, cat_fate=0.1),
}
W = dict(A, lr=1e-3, masked=0.25)
TRIALS |= {
    'wide': dict(W, smallest=0.6, turn=40.0),
    'wide parts': dict(W, smallest=0.6, turn=40.0, part_weight=0.3),
    'wide warm': dict(W, smallest=0.6, turn=40.0, swap_temperature=0.2),
}
TRIALS |= {
    'wide light': dict(W, smallest=0.65, turn=35.0, colour_weight=0.3),
    'wide light warm': dict(W, smallest=0.65, turn=35.0, colour_weight=0.3, swap_temperature=0.2),
}
