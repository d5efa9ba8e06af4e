"""The four networks in PyTorch, with the published names of weights, for training. `relight.models` defines them.

In shape comments: B batch, T text tokens, I image tokens, S = T + I, D hidden size, H heads, C head size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD = 64
VAE_SCALE, VAE_SHIFT = 0.3611, 0.1159


class Scale(nn.Module):
    """RMS norm over the head; `scale` is its weight."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.scale.to(x.dtype), 1e-6)


class QkNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query_norm, self.key_norm = Scale(HEAD), Scale(HEAD)


class Attention(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.qkv, self.norm, self.proj = nn.Linear(size, 3 * size), QkNorm(), nn.Linear(size, size)


class Mod(nn.Module):
    def __init__(self, size: int, sublayers: int) -> None:
        super().__init__()
        self.lin = nn.Linear(size, 3 * sublayers * size)

    def forward(self, vec: Tensor) -> list[Tensor]:
        """Each [B 1 D], `vec` after SiLU."""
        return list(self.lin(vec)[:, None].chunk(self.lin.out_features // self.lin.in_features, -1))


class Embed(nn.Module):
    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.in_layer, self.out_layer = nn.Linear(inputs, size), nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(F.silu(self.in_layer(x)))


def heads(qkv: Tensor, norm: QkNorm) -> tuple[Tensor, Tensor, Tensor]:
    """[B L 3D] -> q, k, v, each [B H L C]."""
    batch, length, width = qkv.shape
    q, k, v = qkv.view(batch, length, 3, width // (3 * HEAD), HEAD).permute(2, 0, 3, 1, 4)
    return norm.query_norm(q), norm.key_norm(k), v


def joint(q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, bias: Tensor | None) -> Tensor:
    """Attention with adjacent pairs turned; `bias` [S] is added to what every query gives a key."""
    q, k = turned(q, cos, sin), turned(k, cos, sin)
    mask = None if bias is None else bias.to(q.dtype).expand(q.shape[0], q.shape[1], q.shape[2], -1)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose(1, 2).flatten(2)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([first * cos - second * sin, first * sin + second * cos], -1).flatten(-2).to(x.dtype)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def mlp(size: int, inner: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, inner), nn.GELU("tanh"), nn.Linear(inner, size))


class DoubleBlock(nn.Module):
    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.img_mod, self.txt_mod = Mod(size, 2), Mod(size, 2)
        self.img_attn, self.txt_attn = Attention(size), Attention(size)
        self.img_mlp, self.txt_mlp = mlp(size, inner), mlp(size, inner)

    def forward(
        self, img: Tensor, txt: Tensor, vec: Tensor, cos: Tensor, sin: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        i_shift, i_scale, i_gate, i_shift2, i_scale2, i_gate2 = self.img_mod(vec)
        t_shift, t_scale, t_gate, t_shift2, t_scale2, t_gate2 = self.txt_mod(vec)
        of_text = heads(self.txt_attn.qkv(modulated(txt, t_shift, t_scale)), self.txt_attn.norm)
        of_image = heads(self.img_attn.qkv(modulated(img, i_shift, i_scale)), self.img_attn.norm)
        q, k, v = (torch.cat(pair, 2) for pair in zip(of_text, of_image, strict=True))
        out = joint(q, k, v, cos, sin, bias)
        img = img + i_gate * self.img_attn.proj(out[:, txt.shape[1] :])
        txt = txt + t_gate * self.txt_attn.proj(out[:, : txt.shape[1]])
        img = img + i_gate2 * self.img_mlp(modulated(img, i_shift2, i_scale2))
        txt = txt + t_gate2 * self.txt_mlp(modulated(txt, t_shift2, t_scale2))
        return img, txt


class SingleBlock(nn.Module):
    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.modulation, self.norm = Mod(size, 1), QkNorm()
        self.linear1, self.linear2 = nn.Linear(size, 3 * size + inner), nn.Linear(size + inner, size)

    def forward(self, x: Tensor, vec: Tensor, cos: Tensor, sin: Tensor, bias: Tensor | None) -> Tensor:
        shift, scale, gate = self.modulation(vec)
        size = x.shape[-1]
        qkv, hidden = self.linear1(modulated(x, shift, scale)).split(
            [3 * size, self.linear1.out_features - 3 * size], -1
        )
        out = joint(*heads(qkv, self.norm), cos, sin, bias)
        return x + gate * self.linear2(torch.cat([out, F.gelu(hidden, approximate="tanh")], -1))


class FinalLayer(nn.Module):
    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(size, 2 * size))
        self.linear = nn.Linear(size, channels)


class Flux(nn.Module):
    """`double` and `single` blocks of `size`, with MLPs of `inner`."""

    def __init__(
        self, size: int, inner: int, double: int, single: int, text: int, pooled: int, channels: int = 64
    ) -> None:
        super().__init__()
        self.img_in, self.txt_in = nn.Linear(channels, size), nn.Linear(text, size)
        self.time_in, self.vector_in = Embed(256, size), Embed(pooled, size)
        self.double_blocks = nn.ModuleList(DoubleBlock(size, inner) for _ in range(double))
        self.single_blocks = nn.ModuleList(SingleBlock(size, inner) for _ in range(single))
        self.final_layer = FinalLayer(size, channels)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
                if name.endswith((".lin", "adaLN_modulation.1", "final_layer.linear")):
                    nn.init.zeros_(module.weight)

    def forward(self, x: Tensor, t: Tensor, text: Tensor, pooled: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [B I 64], t [B] in 0..1, text [B T ...], pooled [B ...]; `bias` [T] for text keys. Velocity [B I 64]."""
        side = math.isqrt(x.shape[1])
        cos, sin = rope(text.shape[1], side, x.device)
        vec = F.silu(self.time_in(time_embedding(t)) + self.vector_in(pooled))
        if bias is not None:
            bias = F.pad(bias, (0, x.shape[1]))
        img, txt = self.img_in(x), self.txt_in(text)
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, cos, sin, bias)
        both = torch.cat([txt, img], 1)
        for block in self.single_blocks:
            both = block(both, vec, cos, sin, bias)
        img = both[:, txt.shape[1] :]
        shift, scale = self.final_layer.adaLN_modulation[1](vec)[:, None].chunk(2, -1)
        return self.final_layer.linear(modulated(img, shift, scale))


def rope(text_tokens: int, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """[S C/2] each: text stands at (0, 0, 0), the patch in row y and column x at (0, y, x)."""
    pairs = HEAD // 2
    grid = torch.arange(side, device=device, dtype=torch.float32)
    y, x = (axis.reshape(-1) for axis in torch.meshgrid(grid, grid, indexing="ij"))
    parts = []
    for position, count in zip(
        (torch.zeros_like(y), y, x), (pairs // 8, pairs * 7 // 16, pairs * 7 // 16), strict=True
    ):
        whole = torch.cat([torch.zeros(text_tokens, device=device), position])
        parts.append(whole[:, None] * 10_000.0 ** (-torch.arange(count, device=device) / count))
    angles = torch.cat(parts, 1)
    return angles.cos(), angles.sin()


def time_embedding(t: Tensor) -> Tensor:
    frequencies = torch.exp(-math.log(10_000) * torch.arange(128, device=t.device) / 128)
    angles = (1000 * t.float())[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)


class T5Norm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight.to(x.dtype), 1e-6)


class T5SelfAttention(nn.Module):
    def __init__(self, size: int, biased: bool) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(size, size, bias=False) for _ in range(4))
        if biased:
            self.relative_attention_bias = nn.Embedding(32, size // HEAD)
            nn.init.zeros_(self.relative_attention_bias.weight)
        nn.init.normal_(self.q.weight, std=(size * HEAD) ** -0.5)
        nn.init.normal_(self.k.weight, std=size**-0.5)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (m(x).unflatten(-1, (-1, HEAD)).transpose(1, 2) for m in (self.q, self.k, self.v))
        weight = (q @ k.transpose(-1, -2) + bias).softmax(-1).to(v.dtype)
        return self.o((weight @ v).transpose(1, 2).flatten(2))


class T5Mlp(nn.Module):
    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.wi_0, self.wi_1 = nn.Linear(size, inner, bias=False), nn.Linear(size, inner, bias=False)
        self.wo = nn.Linear(inner, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


class T5Layer(nn.Module):
    def __init__(self, name: str, module: nn.Module, size: int) -> None:
        super().__init__()
        self.add_module(name, module)
        self.layer_norm = T5Norm(size)


class T5Block(nn.Module):
    def __init__(self, size: int, inner: int, first: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            [
                T5Layer("SelfAttention", T5SelfAttention(size, first), size),
                T5Layer("DenseReluDense", T5Mlp(size, inner), size),
            ]
        )

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        attention, feed_forward = self.layer
        x = x + attention.SelfAttention(attention.layer_norm(x), bias)
        return x + feed_forward.DenseReluDense(feed_forward.layer_norm(x))


class T5(nn.Module):
    def __init__(self, vocabulary: int, size: int, inner: int, layers: int) -> None:
        super().__init__()
        self.shared = nn.Embedding(vocabulary, size)
        self.encoder = nn.Module()
        self.encoder.block = nn.ModuleList(T5Block(size, inner, i == 0) for i in range(layers))
        self.encoder.final_layer_norm = T5Norm(size)
        nn.init.normal_(self.shared.weight, std=0.5)

    def forward(self, ids: Tensor, positions: Tensor, bias: Tensor) -> Tensor:
        """ids [B T] at `positions` [T]; `bias` [T] is added for each key. States [B T D]."""
        table = self.encoder.block[0].layer[0].SelfAttention.relative_attention_bias
        relative = table(buckets(positions)).permute(2, 0, 1) + bias
        x = self.shared(ids)
        for block in self.encoder.block:
            x = block(x, relative)
        return self.encoder.final_layer_norm(x)


def buckets(positions: Tensor) -> Tensor:
    """The bucket of each pair (query, key), [T T]: 32 of them, as `relight.models.t5.position_buckets` has it."""
    offset = positions[None, :] - positions[:, None]
    distance = offset.abs()
    grown = 8 + (torch.log(distance.clamp(min=1).float() / 8) / math.log(128 / 8) * 8).int()
    return torch.where(distance < 8, distance, grown.clamp(max=15)) + 16 * (offset > 0)


class ClipLayer(nn.Module):
    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.self_attn = nn.Module()
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.self_attn.add_module(name, nn.Linear(size, size))
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.mlp = nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(size, inner), nn.Linear(inner, size)

    def forward(self, x: Tensor) -> Tensor:
        normed, a = self.layer_norm1(x), self.self_attn
        q, k, v = (m(normed).unflatten(-1, (-1, HEAD)).transpose(1, 2) for m in (a.q_proj, a.k_proj, a.v_proj))
        x = x + a.out_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        hidden = self.mlp.fc1(self.layer_norm2(x))
        return x + self.mlp.fc2(hidden * torch.sigmoid(1.702 * hidden))


class Clip(nn.Module):
    def __init__(self, size: int, inner: int, layers: int, vocabulary: int = 49408, length: int = 77) -> None:
        super().__init__()
        self.text_model = nn.Module()
        self.text_model.embeddings = nn.Module()
        self.text_model.embeddings.token_embedding = nn.Embedding(vocabulary, size)
        self.text_model.embeddings.position_embedding = nn.Embedding(length, size)
        self.text_model.encoder = nn.Module()
        self.text_model.encoder.layers = nn.ModuleList(ClipLayer(size, inner) for _ in range(layers))
        self.text_model.final_layer_norm = nn.LayerNorm(size)
        nn.init.normal_(self.text_model.embeddings.token_embedding.weight, std=0.2)
        nn.init.normal_(self.text_model.embeddings.position_embedding.weight, std=0.05)

    def forward(self, ids: Tensor) -> Tensor:
        """ids [B L], the end token the largest of all; pooled [B D]. Tokens after the end do not matter."""
        model = self.text_model
        x = model.embeddings.token_embedding(ids) + model.embeddings.position_embedding.weight[: ids.shape[1]]
        for layer in model.encoder.layers:
            x = layer(x)
        return model.final_layer_norm(x)[torch.arange(len(ids), device=ids.device), ids.argmax(1)]


class GroupNorm(nn.GroupNorm):
    """In the type of its input, where autocast would go to 32 bits."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class ResBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = GroupNorm(32, inputs, 1e-6), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = GroupNorm(32, outputs, 1e-6), nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class PixelAttention(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = GroupNorm(32, size, 1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(size, size, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (m(normed).flatten(2).transpose(1, 2)[:, None] for m in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.proj_out(out)


def middle(size: int) -> nn.Module:
    module = nn.Module()
    module.block_1, module.attn_1, module.block_2 = ResBlock(size, size), PixelAttention(size), ResBlock(size, size)
    return module


class Encoder(nn.Module):
    def __init__(self, channels: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.down, last = nn.ModuleList(), channels[0]
        for level, size in enumerate(channels):
            part = nn.Module()
            part.block = nn.ModuleList(ResBlock(last if i == 0 else size, size) for i in range(blocks))
            last = size
            if level < len(channels) - 1:
                part.downsample = nn.Module()
                part.downsample.conv = nn.Conv2d(size, size, 3, stride=2)
            self.down.append(part)
        self.mid = middle(last)
        self.norm_out, self.conv_out = GroupNorm(32, last, 1e-6), nn.Conv2d(last, 32, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for part in self.down:
            for block in part.block:
                x = block(x)
            if hasattr(part, "downsample"):
                x = part.downsample.conv(F.pad(x, (0, 1, 0, 1)))
        x = self.mid.block_2(self.mid.attn_1(self.mid.block_1(x)))
        return self.conv_out(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    def __init__(self, channels: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        last = channels[-1]
        self.conv_in = nn.Conv2d(16, last, 3, padding=1)
        self.mid = middle(last)
        parts = []
        for level in reversed(range(len(channels))):
            part = nn.Module()
            part.block = nn.ModuleList(
                ResBlock(last if i == 0 else channels[level], channels[level]) for i in range(blocks + 1)
            )
            last = channels[level]
            if level:
                part.upsample = nn.Module()
                part.upsample.conv = nn.Conv2d(last, last, 3, padding=1)
            parts.append(part)
        self.up = nn.ModuleList(reversed(parts))
        self.norm_out, self.conv_out = GroupNorm(32, last, 1e-6), nn.Conv2d(last, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.conv_in(z)
        x = self.mid.block_2(self.mid.attn_1(self.mid.block_1(x)))
        for part in reversed(self.up):
            for block in part.block:
                x = block(x)
            if hasattr(part, "upsample"):
                x = part.upsample.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return self.conv_out(F.silu(self.norm_out(x)))


class Vae(nn.Module):
    def __init__(self, channels: tuple[int, ...], blocks: int = 1) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(channels, blocks), Decoder(channels, blocks)
        self.encoder.conv_out.bias.data[16:] = -6  # almost no noise on the latents to begin with

    @torch.no_grad()
    def rescale(self, factor: Tensor) -> None:
        """Multiply the latents, channel by channel [16], in the encoder's last and the decoder's first convolution."""
        self.encoder.conv_out.weight[:16].mul_(factor[:, None, None, None])
        self.encoder.conv_out.bias[:16].mul_(factor)
        self.encoder.conv_out.bias[16:].add_(2 * factor.log())
        self.decoder.conv_in.weight.div_(factor[None, :, None, None])


def pack(latents: Tensor) -> Tensor:
    """[B C h w] to tokens [B hw/4 4C], as `relight.sampling.latents.pack`."""
    batch, channels, height, width = latents.shape
    patches = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, height * width // 4, 4 * channels)


def unpack(tokens: Tensor, side: int) -> Tensor:
    """The inverse of `pack`, for latents of side x side."""
    return (
        tokens.view(len(tokens), side // 2, side // 2, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(-1, 16, side, side)
    )
