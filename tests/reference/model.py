"""The whole model written out naively: full modulation map, loops over heads, codes one by one.

Functions of a dictionary of tensors named as in the package's state, so that gradients can be compared name by name. It
shares no code with the package.
"""

import torch


def norm(x, p, name):
    """Layer normalisation, eps 1e-5."""
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / torch.sqrt(variance + 1e-5) * p[f'{name}.weight'] + p[f'{name}.bias']


def linear(x, p, name):
    """x W^T, plus b if there is one."""
    out = x @ p[f'{name}.weight'].T
    return out + p[f'{name}.bias'] if f'{name}.bias' in p else out


def relu(x):
    """max(x, 0)."""
    return torch.where(x > 0, x, torch.zeros_like(x))


def gru(update, state, p, name):
    """Gated recurrent unit, gates in the order reset, update, new."""
    gi = update @ p[f'{name}.weight_ih'].T + p[f'{name}.bias_ih']
    gh = state @ p[f'{name}.weight_hh'].T + p[f'{name}.bias_hh']
    (ri, zi, ni), (rh, zh, nh) = gi.chunk(3, -1), gh.chunk(3, -1)
    r, z = 1 / (1 + torch.exp(-(ri + rh))), 1 / (1 + torch.exp(-(zi + zh)))
    return (1 - z) * torch.tanh(ni + r * nh) + z * state


def one_pass(p, k, v, slots, iterations, heads, modulation=None):
    """Slot attention with values per slot, (B, K, N, C); modulation has that shape, or is None for ones."""
    name = 'slot_attention'
    size = k.shape[-1] // heads
    values = v[:, None].expand(-1, slots.shape[1], -1, -1)
    if modulation is not None:
        values = values * modulation
    for _ in range(iterations):
        q = norm(slots, p, f'{name}.norm_slots') @ p[f'{name}.project_q.weight'].T
        parts = [slice(h * size, (h + 1) * size) for h in range(heads)]
        logits = torch.stack([q[..., part] @ k[..., part].transpose(1, 2) / size**0.5 for part in parts], 2)
        e = torch.exp(logits - logits.amax((1, 2), keepdim=True))
        a = e / e.sum((1, 2), keepdim=True)  # (B, K, H, N)
        w = (a + 1e-8) / (a + 1e-8).sum(-1, keepdim=True)
        updates = [(w[:, :, h, :, None] * values[..., part]).sum(2) for h, part in enumerate(parts)]
        slots = gru(torch.cat(updates, -1), slots, p, f'{name}.gru')
        hidden = relu(linear(norm(slots, p, f'{name}.norm_mlp'), p, f'{name}.mlp.0'))
        slots = slots + linear(hidden, p, f'{name}.mlp.2')
    return slots, a.mean(2)


def attend(x, memory, p, name, heads, causal):
    """Multi-head attention, head by head; returns output and the mean of the heads' weights."""
    q, k = linear(x, p, f'{name}.project_q'), linear(memory, p, f'{name}.project_k')
    v = linear(memory, p, f'{name}.project_v')
    size = q.shape[-1] // heads
    outputs, weights = [], []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        logits = q[..., part] @ k[..., part].transpose(1, 2) / size**0.5
        if causal:
            index = torch.arange(x.shape[1])
            logits = torch.where(index[None, :] > index[:, None], torch.full_like(logits, -1e30), logits)
        w = torch.softmax(logits, -1)
        outputs.append(w @ v[..., part])
        weights.append(w)
    return linear(torch.cat(outputs, -1), p, f'{name}.project_out'), sum(weights) / heads


def decode(p, slots, target, hidden, layers, heads):
    """Autoregressive decoder; hidden (B, N) marks projected inputs that the mask token replaces as it is."""
    begin = p['decoder.begin_token'].expand(len(target), -1, -1)
    x = torch.cat([begin, target[:, :-1]], 1)
    x = norm(linear(x, p, 'decoder.project_input.0'), p, 'decoder.project_input.1')
    x = torch.where(hidden[..., None], p['decoder.mask_token'], x)
    memory = norm(linear(slots, p, 'decoder.project_slots.0'), p, 'decoder.project_slots.1')
    for i in range(layers):
        name = f'decoder.layers.{i}'
        normed = norm(x, p, f'{name}.norm_self')
        x = x + attend(normed, normed, p, f'{name}.self_attention', heads, True)[0]
        attended, weights = attend(norm(x, p, f'{name}.norm_cross'), memory, p, f'{name}.cross_attention', heads, False)
        x = x + attended
        hidden_units = relu(linear(norm(x, p, f'{name}.norm_mlp'), p, f'{name}.mlp.0'))
        x = x + linear(hidden_units, p, f'{name}.mlp.2')
    return x, weights.transpose(1, 2)


def forward(p, tokens, noise, hidden, *, iterations, heads, layers, decoder_heads, commitment, codes=None):
    """The two-pass model; without ``codes`` the plain baseline. Returns a dictionary."""
    x = linear(relu(linear(norm(tokens, p, 'head.norm'), p, 'head.hidden')), p, 'head.out')
    x = norm(x, p, 'slot_attention.norm_inputs')
    k, v = x @ p['slot_attention.project_k.weight'].T, x @ p['slot_attention.project_v.weight'].T
    start = p['slot_init.mean'] + torch.exp(p['slot_init.log_std']) * noise
    slots, attention = one_pass(p, k, v, start, iterations, heads)
    found = {'first_slots': slots, 'first_attention': attention}
    loss = 0.0
    if codes is not None:
        distance = ((slots.detach()[:, :, None] - codes) ** 2).sum(-1)
        index = distance.argmin(-1)
        nearest = codes[index]
        straight = slots + (nearest - slots).detach()
        loss = commitment * ((slots - nearest.detach()) ** 2).mean()
        what = linear(straight, p, 'modulation.channel')
        where = 1 + attention - attention.mean(-1, keepdim=True)
        slots, attention = one_pass(p, k, v, start, iterations, heads, where[..., None] * what[:, :, None])
        found |= {'index': index}
    reconstruction, masks = decode(p, slots, tokens, hidden, layers, decoder_heads)
    loss = loss + ((reconstruction - tokens) ** 2).mean()
    return found | {
        'slots': slots, 'attention': attention, 'reconstruction': reconstruction, 'masks': masks, 'loss': loss,
    }  # fmt: skip


def update_codebook(codes, sizes, sums, vectors, index, decay, eps=1e-5):
    """Equation (6), code by code, in place."""
    for e in range(len(codes)):
        members = vectors[index == e]
        sizes[e] = decay * sizes[e] + (1 - decay) * len(members)
        sums[e] = decay * sums[e] + (1 - decay) * members.sum(0)
    total = sizes.sum()
    for e in range(len(codes)):
        codes[e] = sums[e] / ((sizes[e] + eps) / (total + len(codes) * eps) * total)
