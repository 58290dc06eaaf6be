"""The diffusion decoder by its equations in NumPy: image by image, patch by patch, head by head."""

import math

import numpy as np


def normed(x, weight=1.0, bias=0.0):
    """One vector, standardised over its channels, eps 1e-5."""
    centred = x - x.mean()
    return centred / math.sqrt((centred**2).mean() + 1e-5) * weight + bias


def decode(p, slots, target, time, noise, layers, heads):
    """Reconstruction (B, N, D) and masks (B, K, N).

    Args:
        p: the decoder's state, name -> array.
        slots, target: (B, K, d), (B, N, D).
        time: one number an image.
        noise: (B, N, D).
        layers, heads: of the transformer.
    """

    def linear(x, name):
        return p[f'{name}.weight'] @ x + p.get(f'{name}.bias', 0.0)

    def norm(x, name):
        return normed(x, p[f'{name}.weight'], p[f'{name}.bias'])

    def attend(x, memory, name):
        """What one position gets from all vectors of a memory, and the mean weight of each over heads."""
        q = np.split(linear(x, f'{name}.project_q'), heads)
        keys = [np.split(linear(m, f'{name}.project_k'), heads) for m in memory]
        values = [np.split(linear(m, f'{name}.project_v'), heads) for m in memory]
        mixed, mean = [], np.zeros(len(memory))
        for h in range(heads):
            scores = [math.exp(float(q[h] @ key[h]) / math.sqrt(len(q[h]))) for key in keys]
            weights = [score / sum(scores) for score in scores]
            mixed.append(sum(weight * value[h] for weight, value in zip(weights, values)))
            mean += np.array(weights) / heads
        return linear(np.concatenate(mixed), f'{name}.project_out'), mean

    found, masks = [], []
    for b in range(len(target)):
        alpha, sigma = math.cos(math.pi * time[b] / 2), math.sin(math.pi * time[b] / 2)
        memory = [norm(linear(slot, 'project_slots.0'), 'project_slots.1') for slot in slots[b]]
        count = p['time_mlp.0.weight'].shape[1] // 2
        angles = [time[b] * 10 ** (2 * i / (count - 1)) for i in range(count)]
        told = np.array([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
        told = linear(np.maximum(linear(told, 'time_mlp.0'), 0), 'time_mlp.2')
        x = []
        for n in range(target.shape[1]):
            noisy = alpha * normed(target[b, n]) + sigma * noise[b, n]
            x.append(linear(alpha * noisy, 'project_input') + p['position'][0, n] + told)
        for i in range(layers):
            name = f'layers.{i}'
            seen = [norm(v, f'{name}.norm_self') for v in x]
            x = [v + attend(s, seen, f'{name}.self_attention')[0] for v, s in zip(x, seen)]
            asked = [attend(norm(v, f'{name}.norm_cross'), memory, f'{name}.cross_attention') for v in x]
            x = [v + out for v, (out, _) in zip(x, asked)]
            hidden = [np.maximum(linear(norm(v, f'{name}.norm_mlp'), f'{name}.mlp.0'), 0) for v in x]
            x = [v + linear(h, f'{name}.mlp.2') for v, h in zip(x, hidden)]
        found.append([linear(norm(v, 'project_out.0'), 'project_out.1') for v in x])
        masks.append(np.stack([weights for _, weights in asked], axis=1))
    return np.array(found), np.stack(masks)
