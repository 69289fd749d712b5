#include "engine/models/autoencoder_kl.h"

#include <ATen/ATen.h>

#include <string>
#include <utility>

#include "base/error.h"
#include "engine/models/vae.h"
#include "engine/models/vae_tiling.h"

namespace limner::engine::models {
namespace {

struct VaeConfig {
  VaeOptions encoder, decoder;
  int64_t sample_size;
  double scaling_factor, shift_factor;
  bool force_upcast, use_quant_conv, use_post_quant_conv;
  std::optional<std::vector<double>> latents_mean, latents_std;
};

void check_block_types(const weights::Config& config, const char* key, const char* wanted,
                       std::size_t count) {
  const std::vector<std::string> types = config.texts(key, {wanted});
  if (types.size() != count) {
    config.fail(key, "want one type per entry of block_out_channels (" + std::to_string(count) +
                         "), got " + std::to_string(types.size()));
  }
  for (const std::string& type : types) {
    if (type != wanted)
      config.fail(key, "block type '" + type + "' is not supported (want " + wanted + ")");
  }
}

std::optional<std::vector<double>> per_channel(const weights::Config& config, const char* key,
                                               int64_t channels) {
  if (!config.has(key)) return std::nullopt;
  std::vector<double> values = config.numbers(key, {});
  if (static_cast<int64_t>(values.size()) != channels) {
    config.fail(key, "want one number per latent channel (" + std::to_string(channels) + "), got " +
                         std::to_string(values.size()));
  }
  return values;
}

int64_t read_sample_size(const weights::Config& config) {
  if (!config.raw("sample_size").is_array())
    return config.integer_in("sample_size", 32, 1, 1 << 20);
  const std::vector<int64_t> sides = config.integers("sample_size", {});
  if (sides.size() != 2 || sides[0] != sides[1] || sides[0] < 1) {
    config.fail("sample_size", "want one side, or two equal ones");
  }
  return sides[0];
}

VaeConfig read_config(const weights::Config& config) {
  constexpr int64_t kWidest = 65536;
  VaeConfig result{};
  VaeOptions& options = result.decoder;
  options.block_out_channels = config.integers("block_out_channels", {64});
  if (options.block_out_channels.empty() || options.block_out_channels.size() > 8) {
    config.fail("block_out_channels", "want 1 to 8 entries");
  }
  for (const int64_t width : options.block_out_channels) {
    if (width < 1 || width > kWidest)
      config.fail("block_out_channels", "want widths from 1 to 65536");
  }
  check_block_types(config, "down_block_types", "DownEncoderBlock2D",
                    options.block_out_channels.size());
  check_block_types(config, "up_block_types", "UpDecoderBlock2D",
                    options.block_out_channels.size());
  options.image_channels = config.integer_in("out_channels", 3, 1, kWidest);
  options.latent_channels = config.integer_in("latent_channels", 4, 1, kWidest);
  options.layers_per_block = config.integer_in("layers_per_block", 1, 1, 64);
  options.norm_num_groups = config.integer_in("norm_num_groups", 32, 1, kWidest);
  options.act_fn = config.text("act_fn", "silu");
  options.mid_block_add_attention = config.boolean("mid_block_add_attention", true);
  result.encoder = options;
  result.encoder.image_channels = config.integer_in("in_channels", 3, 1, kWidest);

  result.sample_size = read_sample_size(config);
  result.scaling_factor = config.number("scaling_factor", 0.18215);
  result.shift_factor = config.number("shift_factor", 0.0);
  result.latents_mean = per_channel(config, "latents_mean", options.latent_channels);
  result.latents_std = per_channel(config, "latents_std", options.latent_channels);
  result.force_upcast = config.boolean("force_upcast", true);
  result.use_quant_conv = config.boolean("use_quant_conv", true);
  result.use_post_quant_conv = config.boolean("use_post_quant_conv", true);
  config.finish();
  return result;
}

int64_t spatial_factor_of(const VaeConfig& config) {
  return int64_t{1} << (config.decoder.block_out_channels.size() - 1);
}

nn::Conv2d::Size pointwise(int64_t channels) {
  return {.in = channels, .out = channels, .kernel = 1, .stride = 1, .padding = 0};
}

void check_channels(const char* where, const at::Tensor& x, int64_t wanted, const char* what) {
  if (x.dim() == 4 && x.size(1) == wanted) return;
  throw Failure(ErrorCode::kInvalidArgument,
                std::string("[") + where + "] want [batch, " + std::to_string(wanted) + ' ' + what +
                    " channels, height, width], got " +
                    (x.dim() == 4 ? std::to_string(x.size(1)) + " channels"
                                  : std::to_string(x.dim()) + " axes"));
}

// Runs `one` over the batch: whole, or a picture at a time.
template <typename Function>
at::Tensor sliced(const at::Tensor& x, bool slicing, const Function& one) {
  if (!slicing || x.size(0) <= 1) return one(x);
  std::vector<at::Tensor> parts;
  for (int64_t i = 0; i < x.size(0); ++i) parts.push_back(one(x.narrow(0, i, 1)));
  return at::cat(parts);
}

}  // namespace

struct AutoencoderKL::Network {
  Network(const weights::Config& json, const nn::TensorSource& source)
      : config(read_config(json)),
        compute(source.placement().compute),
        encoder(source.at("encoder"), config.encoder),
        decoder(source.at("decoder"), config.decoder) {
    const int64_t latent = config.decoder.latent_channels;
    if (config.use_quant_conv) quant_conv.emplace(source.at("quant_conv"), pointwise(2 * latent));
    if (config.use_post_quant_conv)
      post_quant_conv.emplace(source.at("post_quant_conv"), pointwise(latent));
    source.finish();
  }

  at::Tensor encode_whole(const at::Tensor& x) const {
    at::Tensor moments = encoder(x.to(compute).contiguous(at::MemoryFormat::ChannelsLast));
    return quant_conv ? (*quant_conv)(moments) : moments;
  }

  at::Tensor decode_whole(const at::Tensor& z) const {
    at::Tensor h = z.to(compute).contiguous(at::MemoryFormat::ChannelsLast);
    if (post_quant_conv) h = (*post_quant_conv)(h);
    return decoder(h);
  }

  int64_t factor() const { return spatial_factor_of(config); }
  int64_t tile_latent() const { return config.sample_size / factor(); }

  VaeConfig config;
  at::ScalarType compute;
  VaeEncoder encoder;
  VaeDecoder decoder;
  std::optional<nn::Conv2d> quant_conv, post_quant_conv;
};

AutoencoderKL::AutoencoderKL(const weights::Config& config, const nn::TensorSource& source)
    : network_(std::make_unique<const Network>(config, source)) {}

AutoencoderKL::AutoencoderKL(AutoencoderKL&&) noexcept = default;
AutoencoderKL::~AutoencoderKL() = default;

at::Tensor AutoencoderKL::decode(const at::Tensor& z, const AutoencoderOptions& options) const {
  const Network& net = *network_;
  check_channels("vae.decode", z, latent_channels(), "latent");
  const Tiling tiling{.tile_in = net.tile_latent(), .tile_out = net.config.sample_size};
  return sliced(z, options.slicing, [&](const at::Tensor& part) {
    if (!options.tiling || !tiling.needed(part)) return net.decode_whole(part);
    return tiled(part, tiling, [&](const at::Tensor& tile) { return net.decode_whole(tile); });
  });
}

AutoencoderKL::Posterior AutoencoderKL::encode(const at::Tensor& x,
                                               const AutoencoderOptions& options) const {
  const Network& net = *network_;
  check_channels("vae.encode", x, net.config.encoder.image_channels, "image");
  const Tiling tiling{.tile_in = net.config.sample_size, .tile_out = net.tile_latent()};
  const at::Tensor moments = sliced(x, options.slicing, [&](const at::Tensor& part) {
    if (!options.tiling || !tiling.needed(part)) return net.encode_whole(part);
    return tiled(part, tiling, [&](const at::Tensor& tile) { return net.encode_whole(tile); });
  });
  const auto halves = moments.chunk(2, 1);
  return {.mean = halves[0], .logvar = halves[1].clamp(-30.0, 20.0)};
}

AutoencoderKL::Traits AutoencoderKL::traits_of(const weights::Config& config) {
  const VaeConfig read = read_config(config);
  return {.latent_channels = read.decoder.latent_channels,
          .spatial_factor = spatial_factor_of(read)};
}

int64_t AutoencoderKL::latent_channels() const {
  return network_->config.decoder.latent_channels;
}
int64_t AutoencoderKL::spatial_factor() const {
  return network_->factor();
}
double AutoencoderKL::scaling_factor() const {
  return network_->config.scaling_factor;
}
double AutoencoderKL::shift_factor() const {
  return network_->config.shift_factor;
}
bool AutoencoderKL::force_upcast() const {
  return network_->config.force_upcast;
}
int64_t AutoencoderKL::tile_sample_size() const {
  return network_->config.sample_size;
}
int64_t AutoencoderKL::full_size_channels() const {
  const auto& channels = network_->config.decoder.block_out_channels;
  return channels[std::min<std::size_t>(1, channels.size() - 1)];
}
const std::optional<std::vector<double>>& AutoencoderKL::latents_mean() const {
  return network_->config.latents_mean;
}
const std::optional<std::vector<double>>& AutoencoderKL::latents_std() const {
  return network_->config.latents_std;
}

}  // namespace limner::engine::models
