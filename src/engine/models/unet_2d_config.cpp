#include "engine/models/unet_2d_config.h"

#include <algorithm>
#include <optional>

namespace limner::engine::models {
namespace {

using weights::Config;

constexpr int64_t kMostChannels = 1 << 16;
constexpr int64_t kMostLayers = 64;

void check_range(const Config& config, std::string_view key, int64_t value, int64_t lowest,
                 int64_t highest) {
  if (value < lowest || value > highest) {
    config.fail(key, "wants " + std::to_string(lowest) + " to " + std::to_string(highest) +
                         ", got " + std::to_string(value));
  }
}

std::vector<int64_t> per_level(const Config& config, std::string_view key, int64_t fallback,
                               std::size_t count, int64_t highest) {
  std::vector<int64_t> values = config.integer_per_block(key, fallback, count);
  for (const int64_t value : values) check_range(config, key, value, 1, highest);
  return values;
}

// True for each level whose block is the cross-attention form.
std::vector<bool> cross_attention_levels(const Config& config, std::string_view key,
                                         const std::vector<std::string>& types,
                                         std::string_view with, std::string_view without) {
  std::vector<bool> result;
  for (const std::string& type : types) {
    if (type != with && type != without) {
      config.fail(key, "wants " + std::string(with) + " or " + std::string(without) + ", got '" +
                           type + "'");
    }
    result.push_back(type == with);
  }
  return result;
}

// One entry of transformer_layers_per_block: a depth for all layers of the block, or one for each.
std::vector<int64_t> depths(const Config& config, std::string_view key, const nlohmann::json& entry,
                            int64_t layers) {
  const auto depth = [&](const nlohmann::json& value) {
    if (!value.is_number_integer()) config.fail(key, "wants integers, got " + value.dump());
    const auto number = value.get<int64_t>();
    check_range(config, key, number, 0, kMostLayers);
    return number;
  };
  if (!entry.is_array()) {
    return std::vector<int64_t>(static_cast<std::size_t>(layers), depth(entry));
  }
  if (std::cmp_less(entry.size(), layers)) {
    config.fail(key, "wants " + std::to_string(layers) + " depths for the block's layers, got " +
                         entry.dump());
  }
  std::vector<int64_t> result;
  for (int64_t i = 0; i < layers; ++i) result.push_back(depth(entry[static_cast<std::size_t>(i)]));
  return result;
}

void read_depths(const Config& config, UNetConfig& unet) {
  constexpr std::string_view kDown = "transformer_layers_per_block";
  constexpr std::string_view kUp = "reverse_transformer_layers_per_block";
  const std::size_t count = unet.levels.size();
  const auto entries = [&](std::string_view key) {
    const nlohmann::json& value = config.raw(key);
    nlohmann::json list = value;
    if (value.is_null()) list = 1;
    if (!list.is_array()) list = nlohmann::json(count, list);
    if (list.size() != count) {
      config.fail(
          key, "wants " + std::to_string(count) + " entries, got " + std::to_string(list.size()));
    }
    return list;
  };
  const nlohmann::json down = entries(kDown);
  const bool own_up = !config.raw(kUp).is_null();
  const nlohmann::json up = own_up ? entries(kUp) : nlohmann::json();
  for (std::size_t i = 0; i < count; ++i) {
    UNetLevel& level = unet.levels[i];
    level.down_depth = depths(config, kDown, down[i], level.layers);
    if (own_up) {
      level.up_depth = depths(config, kUp, up[count - 1 - i], level.layers + 1);
    } else if (down[i].is_array()) {
      config.fail(kDown,
                  "with a depth for each layer needs 'reverse_transformer_layers_per_block' too");
    } else {
      level.up_depth = depths(config, kDown, down[i], level.layers + 1);
    }
  }
  unet.mid_depth = depths(config, kDown, down.back(), 1).front();
}

// The key that holds the head counts. `attention_head_dim` has always done so, whatever its name
// says (huggingface/diffusers issue 2011); a `num_attention_heads` that is set means what it says.
std::string_view heads_key(const Config& config) {
  config.ignore({"attention_head_dim"});
  return config.has("num_attention_heads") ? "num_attention_heads" : "attention_head_dim";
}

void read_levels(const Config& config, UNetConfig& unet) {
  const auto channels = config.integers("block_out_channels", {320, 640, 1280, 1280});
  const std::size_t count = channels.size();
  check_range(config, "block_out_channels", static_cast<int64_t>(count), 1, 12);
  const auto down_types = config.texts(
      "down_block_types",
      {"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"});
  const auto up_types =
      config.texts("up_block_types",
                   {"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"});
  if (down_types.size() != count || up_types.size() != count) {
    config.fail("block_out_channels",
                "wants as many entries as down_block_types (" + std::to_string(down_types.size()) +
                    ") and up_block_types (" + std::to_string(up_types.size()) + "), got " +
                    std::to_string(count));
  }
  const auto down = cross_attention_levels(config, "down_block_types", down_types,
                                           "CrossAttnDownBlock2D", "DownBlock2D");
  const auto up =
      cross_attention_levels(config, "up_block_types", up_types, "CrossAttnUpBlock2D", "UpBlock2D");
  const auto layers = per_level(config, "layers_per_block", 2, count, kMostLayers);
  const std::string_view heads_are_in = heads_key(config);
  const auto heads = per_level(config, heads_are_in, 8, count, kMostChannels);
  for (std::size_t i = 0; i < count; ++i) {
    check_range(config, "block_out_channels", channels[i], 1, kMostChannels);
    if (channels[i] % unet.norm_num_groups != 0) {
      config.fail("norm_num_groups", "= " + std::to_string(unet.norm_num_groups) +
                                         ", which does not divide " + std::to_string(channels[i]) +
                                         " channels of block_out_channels");
    }
    const bool in_the_middle = i + 1 == count && unet.mid_block != MidBlock::kResnet;
    const bool attends = down[i] || up[count - 1 - i] || in_the_middle;
    if (attends && channels[i] % heads[i] != 0) {
      config.fail(heads_are_in, "= " + std::to_string(heads[i]) + " heads, which does not divide " +
                                    std::to_string(channels[i]) +
                                    " channels of block_out_channels");
    }
    unet.levels.push_back({.channels = channels[i],
                           .heads = heads[i],
                           .layers = layers[i],
                           .down_cross_attention = down[i],
                           .up_cross_attention = up[count - 1 - i],
                           .only_cross_attention = false,
                           .down_depth = {},
                           .up_depth = {}});
  }
}

void read_only_cross_attention(const Config& config, UNetConfig& unet) {
  constexpr std::string_view kKey = "only_cross_attention";
  const nlohmann::json& value = config.raw(kKey);
  if (value.is_null()) return;
  const std::size_t count = unet.levels.size();
  const nlohmann::json list = value.is_array() ? value : nlohmann::json(count, value);
  const bool fits = list.size() == count &&
                    std::ranges::all_of(list, [](const auto& entry) { return entry.is_boolean(); });
  if (!fits) {
    config.fail(kKey,
                "wants a boolean or " + std::to_string(count) + " of them, got " + value.dump());
  }
  for (std::size_t i = 0; i < count; ++i) unet.levels[i].only_cross_attention = list[i];
}

MidBlock read_mid_block(const Config& config) {
  const std::string type = config.text("mid_block_type", "");
  if (type.empty()) return MidBlock::kUnsaid;
  if (type == "UNetMidBlock2DCrossAttn") return MidBlock::kCrossAttention;
  if (type == "UNetMidBlock2D") return MidBlock::kResnet;
  config.fail("mid_block_type",
              "wants UNetMidBlock2DCrossAttn or UNetMidBlock2D, got '" + type + "'");
}

void read_embeddings(const Config& config, UNetConfig& unet) {
  unet.flip_sin_to_cos = config.boolean("flip_sin_to_cos", true);
  unet.freq_shift = config.number("freq_shift", 0.0);
  if (unet.freq_shift >= static_cast<double>(unet.levels.front().channels / 2)) {
    config.fail("freq_shift", "wants less than half of the first block_out_channels");
  }
  unet.time_embedding_dim = config.integer_in(
      "time_embedding_dim", 4 * unet.levels.front().channels, 1, 4 * kMostChannels);
  unet.time_cond_proj_dim = config.has("time_cond_proj_dim")
                                ? config.integer_in("time_cond_proj_dim", 1, 1, kMostChannels)
                                : 0;
  unet.projection_class_embeddings_input_dim =
      config.has("projection_class_embeddings_input_dim")
          ? config.integer_in("projection_class_embeddings_input_dim", 1, 1, 4 * kMostChannels)
          : 0;
  unet.class_embed_type = config.text("class_embed_type", "");
  const auto& kind = unet.class_embed_type;
  if (!kind.empty() && kind != "timestep" && kind != "identity" && kind != "projection" &&
      kind != "simple_projection") {
    config.fail("class_embed_type",
                "wants timestep, identity, projection or simple_projection, got '" + kind + "'");
  }
  if (kind.ends_with("projection") && unet.projection_class_embeddings_input_dim == 0) {
    config.fail("class_embed_type", "needs 'projection_class_embeddings_input_dim'");
  }
  unet.num_class_embeds = config.has("num_class_embeds")
                              ? config.integer_in("num_class_embeds", 1, 1, int64_t{1} << 24)
                              : 0;
  unet.addition_embed_type = config.text("addition_embed_type", "");
  unet.addition_time_embed_dim =
      config.has("addition_time_embed_dim")
          ? config.integer_in("addition_time_embed_dim", 1, 2, kMostChannels)
          : 0;
  if (unet.addition_embed_type.empty()) return;
  if (unet.addition_embed_type != "text_time") {
    config.fail("addition_embed_type", "wants text_time, got '" + unet.addition_embed_type + "'");
  }
  if (unet.addition_time_embed_dim == 0 || unet.projection_class_embeddings_input_dim == 0) {
    config.fail("addition_embed_type",
                "text_time needs 'addition_time_embed_dim' and "
                "'projection_class_embeddings_input_dim'");
  }
}

int64_t read_cross_attention_dim(const Config& config, std::size_t count) {
  const auto dims = per_level(config, "cross_attention_dim", 1280, count, kMostChannels);
  if (std::ranges::any_of(dims, [&](int64_t dim) { return dim != dims.front(); })) {
    config.fail("cross_attention_dim", "wants one width for all blocks");
  }
  return dims.front();
}

// The native latent side; of an oblong one the longer.
int64_t read_sample_size(const Config& config) {
  const nlohmann::json& value = config.raw("sample_size");
  if (!value.is_array()) return config.integer_in("sample_size", 64, 1, 1 << 16);
  const auto sides = config.integers("sample_size", {});
  if (sides.size() != 2) config.fail("sample_size", "wants one side or two, got " + value.dump());
  for (const int64_t side : sides) check_range(config, "sample_size", side, 1, 1 << 16);
  return std::max(sides[0], sides[1]);
}

// What other UNets of diffusers use and this one does not compute.
void refuse_the_rest(const Config& config) {
  for (const char* key : {"dual_cross_attention", "class_embeddings_concat", "resnet_skip_time_act",
                          "mid_block_only_cross_attention"}) {
    config.only(key, false);
  }
  for (const char* key : {"encoder_hid_dim", "encoder_hid_dim_type", "time_embedding_act_fn",
                          "timestep_post_act", "cross_attention_norm"}) {
    config.only(key, nullptr);
  }
  config.only("resnet_out_scale_factor", 1.0);
  config.only("time_embedding_type", "positional");
  config.only("attention_type", "default");
  config.ignore({"dropout", "addition_embed_type_num_heads"});
}

}  // namespace

UNetConfig read_unet_config(const weights::Config& config) {
  UNetConfig unet;
  unet.sample_size = read_sample_size(config);
  unet.in_channels = config.integer_in("in_channels", 4, 1, 4096);
  unet.out_channels = config.integer_in("out_channels", 4, 1, 4096);
  unet.center_input_sample = config.boolean("center_input_sample", false);
  unet.norm_num_groups = config.integer_in("norm_num_groups", 32, 1, kMostChannels);
  unet.norm_eps = config.number("norm_eps", 1e-5);
  unet.act_fn = config.text("act_fn", "silu");
  unet.mid_block = read_mid_block(config);
  read_levels(config, unet);
  read_only_cross_attention(config, unet);
  read_depths(config, unet);
  unet.mid_block_scale_factor = config.number("mid_block_scale_factor", 1.0);
  if (unet.mid_block_scale_factor == 0.0) config.fail("mid_block_scale_factor", "wants not 0");
  unet.cross_attention_dim = read_cross_attention_dim(config, unet.levels.size());
  unet.use_linear_projection = config.boolean("use_linear_projection", false);
  unet.upcast_attention = config.boolean("upcast_attention", false);
  unet.downsample_padding = config.integer_in("downsample_padding", 1, 0, 1);
  for (auto [key, kernel] : {std::pair{"conv_in_kernel", &unet.conv_in_kernel},
                             std::pair{"conv_out_kernel", &unet.conv_out_kernel}}) {
    *kernel = config.integer_in(key, 3, 1, 15);
    if (*kernel % 2 == 0) config.fail(key, "wants an odd number, got " + std::to_string(*kernel));
  }
  const std::string shift = config.text("resnet_time_scale_shift", "default");
  unet.scale_shift = shift == "scale_shift";
  if (!unet.scale_shift && shift != "default") {
    config.fail("resnet_time_scale_shift", "wants default or scale_shift, got '" + shift + "'");
  }
  read_embeddings(config, unet);
  refuse_the_rest(config);
  config.finish();
  return unet;
}

}  // namespace limner::engine::models
