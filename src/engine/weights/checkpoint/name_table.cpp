#include "engine/weights/checkpoint/name_table.h"

#include <fmt/format.h>

#include <array>
#include <utility>

namespace limner::engine::weights {
namespace {

constexpr std::array<std::string_view, 3> kThirdNames = {"q_proj", "k_proj", "v_proj"};
constexpr int kMostBlocks = 256;  // a name set that goes on longer is none of ours

struct Inner {
  const char* ldm;
  const char* diffusers;
};

constexpr std::array<Inner, 6> kUNetResnet = {{{"in_layers.0.", "norm1."},
                                               {"in_layers.2.", "conv1."},
                                               {"emb_layers.1.", "time_emb_proj."},
                                               {"out_layers.0.", "norm2."},
                                               {"out_layers.3.", "conv2."},
                                               {"skip_connection.", "conv_shortcut."}}};
// Inside a Transformer2DModel both spell alike.
constexpr std::array<const char*, 4> kTransformer = {"norm.", "proj_in.", "transformer_blocks.",
                                                     "proj_out."};

void add_resnet(NameTable& table, const std::string& ldm, const std::string& diffusers) {
  for (const Inner& inner : kUNetResnet) table.add(ldm + inner.ldm, diffusers + inner.diffusers);
}

void add_transformer(NameTable& table, const std::string& ldm, const std::string& diffusers) {
  for (const char* inner : kTransformer) table.add(ldm + inner, diffusers + inner);
}

// One resolution of a UNet, on the way down or up.
struct Level {
  int resnets = 0;
  bool attention = false;
  bool sampler = false;
};

struct UNetLayout {
  std::vector<Level> down, up;
};

UNetLayout layout_of_ldm(const NameSet& names) {
  UNetLayout layout;
  const auto block = [&](const char* side, int i, const char* rest) {
    return has_prefix(names, fmt::format("{}.{}.{}", side, i, rest));
  };
  Level level;
  for (int i = 1; i < kMostBlocks && block("input_blocks", i, ""); ++i) {
    level.attention = level.attention || block("input_blocks", i, "1.norm.");
    if (block("input_blocks", i, "0.op.")) {
      level.sampler = true;
      layout.down.push_back(std::exchange(level, {}));
    } else {
      ++level.resnets;
    }
  }
  if (level.resnets > 0) layout.down.push_back(level);
  level = {};
  for (int i = 0; i < kMostBlocks && block("output_blocks", i, ""); ++i) {
    ++level.resnets;
    level.attention = level.attention || block("output_blocks", i, "1.norm.");
    if (block("output_blocks", i, "1.conv.") || block("output_blocks", i, "2.conv.")) {
      level.sampler = true;
      layout.up.push_back(std::exchange(level, {}));
    }
  }
  if (level.resnets > 0) layout.up.push_back(level);
  return layout;
}

std::vector<Level> levels_of_diffusers(const NameSet& names, const char* blocks,
                                       const char* sampler) {
  std::vector<Level> levels;
  const auto has = [&](int i, const std::string& rest) {
    return has_prefix(names, fmt::format("{}.{}.{}", blocks, i, rest));
  };
  for (int i = 0; i < kMostBlocks && has(i, ""); ++i) {
    Level level;
    while (level.resnets < kMostBlocks && has(i, fmt::format("resnets.{}.", level.resnets)))
      ++level.resnets;
    level.attention = has(i, "attentions.");
    level.sampler = has(i, sampler);
    levels.push_back(level);
  }
  return levels;
}

// input_blocks counts on over all levels, a downsampler taking a number of its own.
void add_down(NameTable& table, const std::vector<Level>& levels) {
  int block = 1;
  for (std::size_t i = 0; i < levels.size(); ++i) {
    for (int j = 0; j < levels[i].resnets; ++j, ++block) {
      add_resnet(table, fmt::format("input_blocks.{}.0.", block),
                 fmt::format("down_blocks.{}.resnets.{}.", i, j));
      add_transformer(table, fmt::format("input_blocks.{}.1.", block),
                      fmt::format("down_blocks.{}.attentions.{}.", i, j));
    }
    if (levels[i].sampler) {
      table.add(fmt::format("input_blocks.{}.0.op.", block++),
                fmt::format("down_blocks.{}.downsamplers.0.conv.", i));
    }
  }
}

// An upsampler shares the number of its level's last resnet, behind the attention if there is one.
void add_up(NameTable& table, const std::vector<Level>& levels) {
  int block = 0;
  for (std::size_t i = 0; i < levels.size(); ++i) {
    for (int j = 0; j < levels[i].resnets; ++j, ++block) {
      add_resnet(table, fmt::format("output_blocks.{}.0.", block),
                 fmt::format("up_blocks.{}.resnets.{}.", i, j));
      add_transformer(table, fmt::format("output_blocks.{}.1.", block),
                      fmt::format("up_blocks.{}.attentions.{}.", i, j));
    }
    if (levels[i].sampler) {
      table.add(fmt::format("output_blocks.{}.{}.conv.", block - 1, levels[i].attention ? 2 : 1),
                fmt::format("up_blocks.{}.upsamplers.0.conv.", i));
    }
  }
}

constexpr std::array<const char*, 5> kVaeResnet = {"norm1.", "conv1.", "norm2.", "conv2.",
                                                   "nin_shortcut."};

void add_vae_resnet(NameTable& table, const std::string& ldm, const std::string& diffusers) {
  for (const std::string inner : kVaeResnet) {
    table.add(ldm + inner, diffusers + (inner == "nin_shortcut." ? "conv_shortcut." : inner));
  }
}

void add_vae_middle(NameTable& table, const std::string& side) {
  add_vae_resnet(table, side + "mid.block_1.", side + "mid_block.resnets.0.");
  add_vae_resnet(table, side + "mid.block_2.", side + "mid_block.resnets.1.");
  const std::string ldm = side + "mid.attn_1.", diffusers = side + "mid_block.attentions.0.";
  table.add(ldm + "norm.", diffusers + "group_norm.");
  constexpr std::array<Inner, 4> kProjections = {
      {{"q.", "to_q."}, {"k.", "to_k."}, {"v.", "to_v."}, {"proj_out.", "to_out.0."}}};
  for (const auto& [from, to] : kProjections) {
    table.add(ldm + from + "weight", diffusers + to + "weight", TensorForm::kSqueezed);
    table.add(ldm + from + "bias", diffusers + to + "bias");
  }
}

int count(const NameSet& names, const char* ldm, const char* diffusers) {
  for (const char* pattern : {ldm, diffusers}) {
    int found = 0;
    while (found < kMostBlocks && has_prefix(names, fmt::format("{}{}.", pattern, found))) ++found;
    if (found > 0) return found;
  }
  return 0;
}

}  // namespace

bool has_prefix(const NameSet& names, std::string_view prefix) {
  const auto at = names.lower_bound(prefix);
  return at != names.end() && at->starts_with(prefix);
}

void NameTable::add(std::string ldm, std::string diffusers, TensorForm form) {
  from_diffusers_[diffusers] = {ldm, form};
  from_ldm_[std::move(ldm)] = {std::move(diffusers), form};
}

std::optional<RenamedTensor> NameTable::look_up(const Side& side, std::string_view name) {
  // Prefixes end in a dot, or are the whole name.
  for (std::string_view prefix = name; !prefix.empty();) {
    if (const auto found = side.find(prefix); found != side.end()) {
      return RenamedTensor{found->second.other + std::string(name.substr(prefix.size())),
                           found->second.form};
    }
    if (prefix.back() == '.') prefix.remove_suffix(1);
    const std::size_t dot = prefix.rfind('.');
    if (dot == std::string_view::npos) break;
    prefix = prefix.substr(0, dot + 1);
  }
  return std::nullopt;
}

std::optional<RenamedTensor> NameTable::to_diffusers(std::string_view ldm) const {
  return look_up(from_ldm_, ldm);
}

std::optional<RenamedTensor> NameTable::to_ldm(std::string_view diffusers) const {
  return look_up(from_diffusers_, diffusers);
}

int part_of(std::string_view diffusers) {
  for (std::size_t part = 0; part < kThirdNames.size(); ++part) {
    if (diffusers.find(kThirdNames[part]) != std::string_view::npos) return static_cast<int>(part);
  }
  return 0;
}

std::vector<std::string> thirds_of(std::string_view query) {
  std::vector<std::string> names;
  const std::size_t at = query.find(kThirdNames[0]);
  for (const std::string_view part : kThirdNames) {
    names.push_back(std::string(query).replace(at, kThirdNames[0].size(), part));
  }
  return names;
}

NameTable unet_names(const NameSet& names) {
  NameTable table;
  if (names.empty()) return table;
  const bool ldm = has_prefix(names, "input_blocks.");
  const UNetLayout layout =
      ldm ? layout_of_ldm(names)
          : UNetLayout{levels_of_diffusers(names, "down_blocks", "downsamplers."),
                       levels_of_diffusers(names, "up_blocks", "upsamplers.")};
  constexpr std::array<Inner, 7> kAround = {{{"input_blocks.0.0.", "conv_in."},
                                             {"time_embed.0.", "time_embedding.linear_1."},
                                             {"time_embed.2.", "time_embedding.linear_2."},
                                             {"label_emb.0.0.", "add_embedding.linear_1."},
                                             {"label_emb.0.2.", "add_embedding.linear_2."},
                                             {"out.0.", "conv_norm_out."},
                                             {"out.2.", "conv_out."}}};
  for (const Inner& outer : kAround) table.add(outer.ldm, outer.diffusers);
  // Guidance-distilled checkpoints: diffusers' own layer, which ldm spells in one way only.
  table.add("time_embed.cond_proj.", "time_embedding.cond_proj.");
  add_down(table, layout.down);
  add_resnet(table, "middle_block.0.", "mid_block.resnets.0.");
  add_transformer(table, "middle_block.1.", "mid_block.attentions.0.");
  add_resnet(table, "middle_block.2.", "mid_block.resnets.1.");
  add_up(table, layout.up);
  return table;
}

NameTable vae_names(const NameSet& names) {
  NameTable table;
  const int levels = count(names, "decoder.up.", "decoder.up_blocks.");
  for (const std::string side : {"encoder.", "decoder."}) {
    table.add(side + "conv_in.", side + "conv_in.");
    table.add(side + "conv_out.", side + "conv_out.");
    table.add(side + "norm_out.", side + "conv_norm_out.");
    add_vae_middle(table, side);
  }
  for (const std::string pointwise : {"quant_conv.", "post_quant_conv."}) {
    table.add(pointwise, pointwise);
  }
  for (int i = 0; i < levels; ++i) {
    // ldm numbers the decoder's levels by resolution, diffusers by when they come.
    const std::string down = fmt::format("encoder.down.{}.", i),
                      down_block = fmt::format("encoder.down_blocks.{}.", i),
                      up = fmt::format("decoder.up.{}.", i),
                      up_block = fmt::format("decoder.up_blocks.{}.", levels - 1 - i);
    for (int j = 0; j < 8; ++j) {
      add_vae_resnet(table, fmt::format("{}block.{}.", down, j),
                     fmt::format("{}resnets.{}.", down_block, j));
      add_vae_resnet(table, fmt::format("{}block.{}.", up, j),
                     fmt::format("{}resnets.{}.", up_block, j));
    }
    table.add(down + "downsample.conv.", down_block + "downsamplers.0.conv.");
    table.add(up + "upsample.conv.", up_block + "upsamplers.0.conv.");
  }
  return table;
}

NameTable open_clip_names(const NameSet& names) {
  NameTable table;
  table.add("token_embedding.weight", "text_model.embeddings.token_embedding.weight");
  table.add("positional_embedding", "text_model.embeddings.position_embedding.weight");
  table.add("ln_final.", "text_model.final_layer_norm.");
  table.add("text_projection", "text_projection.weight", TensorForm::kTransposed);
  const int layers = count(names, "transformer.resblocks.", "text_model.encoder.layers.");
  constexpr std::array<Inner, 5> kLayer = {{{"ln_1.", "layer_norm1."},
                                            {"ln_2.", "layer_norm2."},
                                            {"mlp.c_fc.", "mlp.fc1."},
                                            {"mlp.c_proj.", "mlp.fc2."},
                                            {"attn.out_proj.", "self_attn.out_proj."}}};
  for (int i = 0; i < layers; ++i) {
    const std::string ldm = fmt::format("transformer.resblocks.{}.", i),
                      diffusers = fmt::format("text_model.encoder.layers.{}.", i);
    for (const Inner& inner : kLayer) table.add(ldm + inner.ldm, diffusers + inner.diffusers);
    // The last added is the one that the way from ldm finds: the query.
    for (const char* part : {"v", "k", "q"}) {
      for (const std::string kind : {"weight", "bias"}) {
        table.add(ldm + "attn.in_proj_" + kind,
                  fmt::format("{}self_attn.{}_proj.{}", diffusers, part, kind),
                  TensorForm::kThirds);
      }
    }
  }
  return table;
}

NameTable clip_names(const NameSet& names) {
  NameTable table;
  const bool bare = has_prefix(names, "embeddings.");
  for (const std::string part : {"embeddings.", "encoder.", "final_layer_norm."}) {
    table.add((bare ? "" : "text_model.") + part, "text_model." + part);
  }
  table.add("text_projection.weight", "text_projection.weight");
  return table;
}

}  // namespace limner::engine::weights
