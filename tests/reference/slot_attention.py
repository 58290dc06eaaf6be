"""Slot attention with the full modulation map of the paper, in NumPy."""

import numpy as np


def layer_norm(x, weight, bias, eps=1e-5):
    """(..., d) normalised over its last axis."""
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + eps) * weight + bias


def sigmoid(x):
    """Logistic function."""
    return 1 / (1 + np.exp(-x))


def gru(update, state, p):
    """One step of a gated recurrent unit, gates in the order reset, update, new."""
    gi = update @ p['gru.weight_ih'].T + p['gru.bias_ih']
    gh = state @ p['gru.weight_hh'].T + p['gru.bias_hh']
    (ri, zi, ni), (rh, zh, nh) = np.split(gi, 3, -1), np.split(gh, 3, -1)
    r, z = sigmoid(ri + rh), sigmoid(zi + zh)
    return (1 - z) * np.tanh(ni + r * nh) + z * state


def slot_attention(p, inputs, slots, iterations, heads, channel, spatial, query, hidden):
    """One image: inputs (N, D), slots (K, d) -> slots (K, d), attention (K, N) averaged over heads.

    Scales: channel and query (K, C), spatial (K, N), hidden (K, hidden width). ``p`` is the module's state.
    """
    x = layer_norm(inputs, p['norm_inputs.weight'], p['norm_inputs.bias'])
    k, v = x @ p['project_k.weight'].T, x @ p['project_v.weight'].T
    num_slots, num_patches, size = len(slots), len(inputs), k.shape[1] // heads
    for _ in range(iterations):
        q = layer_norm(slots, p['norm_slots.weight'], p['norm_slots.bias']) @ p['project_q.weight'].T * query
        logits = np.zeros((num_slots, heads, num_patches))
        for s in range(num_slots):
            for h in range(heads):
                part = slice(h * size, (h + 1) * size)
                logits[s, h] = k[:, part] @ q[s, part] / np.sqrt(size)
        a = np.exp(logits - logits.max((0, 1)))
        a = a / a.sum((0, 1))  # every patch is shared out over slots and heads together
        updates = np.zeros((num_slots, k.shape[1]))
        for s in range(num_slots):
            modulation = spatial[s][:, None] * channel[s][None, :]  # the map of the paper, N x C
            modulated = modulation * v
            for h in range(heads):
                part = slice(h * size, (h + 1) * size)
                w = a[s, h] + 1e-8
                updates[s, part] = (w / w.sum()) @ modulated[:, part]
        slots = gru(updates, slots, p)
        h = layer_norm(slots, p['norm_mlp.weight'], p['norm_mlp.bias']) @ p['mlp.0.weight'].T + p['mlp.0.bias']
        slots = slots + (np.maximum(h, 0) * hidden) @ p['mlp.2.weight'].T + p['mlp.2.bias']
    return slots, a.mean(1)
