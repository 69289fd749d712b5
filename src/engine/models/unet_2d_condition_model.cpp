#include "engine/models/unet_2d_condition_model.h"

#include <ATen/ATen.h>

#include <array>
#include <utility>
#include <vector>

#include "base/error.h"
#include "engine/models/unet_2d_blocks.h"
#include "engine/models/unet_2d_config.h"
#include "engine/nn/embeddings.h"

namespace limner::engine::models {
namespace {

void want_shape(const at::Tensor& tensor, std::string_view name, at::IntArrayRef shape) {
  const auto as_text = [](at::IntArrayRef sizes) {
    std::string text = "[";
    for (const int64_t size : sizes) {
      if (text.size() > 1) text += ", ";
      text += size < 0 ? "any" : std::to_string(size);
    }
    return text + "]";
  };
  bool fits = tensor.defined() && tensor.dim() == static_cast<int64_t>(shape.size());
  for (std::size_t i = 0; fits && i < shape.size(); ++i) {
    const int64_t size = tensor.size(static_cast<int64_t>(i));
    fits = shape[i] < 0 ? size > 0 : size == shape[i];
  }
  if (fits) return;
  throw Failure(ErrorCode::kInvalidModel,
                "[unet] want " + std::string(name) + " " + as_text(shape) + ", got " +
                    (tensor.defined() ? as_text(tensor.sizes()) : std::string("none")));
}

nn::SinusoidOptions sinusoid(const UNetConfig& config, int64_t width) {
  return {.width = width,
          .flip_sin_to_cos = config.flip_sin_to_cos,
          .downscale_freq_shift = config.freq_shift};
}

// What is added to the time embedding for a class label.
class ClassEmbedding {
 public:
  ClassEmbedding(const nn::TensorSource& source, const UNetConfig& config)
      : kind_(config.class_embed_type),
        classes_(config.num_class_embeds),
        proj_(sinusoid(config, config.levels.front().channels)),
        in_(config.projection_class_embeddings_input_dim),
        out_(config.time_embedding_dim) {
    if (kind_ == "timestep") {
      mlp_.emplace(source, nn::TimestepEmbedding::Size{proj_.width, out_},
                   nn::activation(config.act_fn, source.prefix()));
    } else if (kind_ == "projection") {
      mlp_.emplace(source, nn::TimestepEmbedding::Size{in_, out_},
                   nn::activation("silu", source.prefix()));
    } else if (kind_ == "simple_projection") {
      linear_.emplace(source, nn::Linear::Size{in_, out_, true});
    } else if (kind_.empty()) {
      table_.emplace(source, nn::Embedding::Size{classes_, out_});
    }
  }

  // labels [B] or [B, n] -> [B, T]
  at::Tensor operator()(const at::Tensor& labels, int64_t batch, at::ScalarType compute,
                        const nn::RowAdapters& adapters) const {
    if (table_) {
      want_shape(labels, "class_labels", {batch});
      const at::Tensor ids = labels.to(at::kLong);
      if (ids.min().item<int64_t>() < 0 || ids.max().item<int64_t>() >= classes_) {
        throw Failure(ErrorCode::kInvalidArgument,
                      "[unet] want class labels of 0 to " + std::to_string(classes_ - 1));
      }
      return (*table_)(ids);
    }
    if (kind_ == "timestep") {
      want_shape(labels, "class_labels", {batch});
      return (*mlp_)(nn::sinusoidal_embedding(labels, proj_).to(compute), adapters);
    }
    want_shape(labels, "class_labels", {batch, kind_ == "identity" ? out_ : in_});
    const at::Tensor x = labels.to(compute);
    if (mlp_) return (*mlp_)(x, adapters);
    return linear_ ? (*linear_)(x, adapters) : x;
  }

 private:
  std::string kind_;
  int64_t classes_;
  nn::SinusoidOptions proj_;
  int64_t in_, out_;
  std::optional<nn::TimestepEmbedding> mlp_;
  std::optional<nn::Linear> linear_;
  std::optional<nn::Embedding> table_;
};

nn::Conv2d::Size same_size_conv(int64_t in, int64_t out, int64_t kernel) {
  return {.in = in, .out = out, .kernel = kernel, .stride = 1, .padding = kernel / 2};
}

UNet2DConditionModel::Traits read_traits(const UNetConfig& unet) {
  return {.in_channels = unet.in_channels,
          .out_channels = unet.out_channels,
          .sample_size = unet.sample_size,
          .cross_attention_dim = unet.cross_attention_dim,
          .addition_embed_type = unet.addition_embed_type,
          .addition_time_embed_dim = unet.addition_time_embed_dim,
          .projection_class_embeddings_input_dim = unet.projection_class_embeddings_input_dim,
          .time_cond_proj_dim = unet.time_cond_proj_dim,
          .base_channels = unet.levels.front().channels,
          .num_class_embeds = unet.class_embed_type.empty() ? unet.num_class_embeds : 0,
          .class_embed_type = unet.class_embed_type,
          .downsampling = int64_t{1} << (unet.levels.size() - 1)};
}

}  // namespace

struct UNet2DConditionModel::Network {
  Network(const UNetConfig& config, const nn::TensorSource& source);
  // [B, T] before its activation.
  at::Tensor time_embedding_of(const UNetInput& input, const nn::RowAdapters& adapters) const;
  void check(const UNetInput& input) const;

  UNetConfig config;
  Traits traits;
  nn::Placement placement;
  nn::Activation act;
  bool act_is_silu;
  nn::TimestepEmbedding time_embedding;
  std::optional<nn::Linear> cond_proj;
  std::optional<ClassEmbedding> class_embedding;
  std::optional<nn::TimestepEmbedding> add_embedding;
  nn::Conv2d conv_in;
  std::vector<DownBlock> down_blocks;
  std::optional<MidBlock2D> mid_block;
  std::vector<UpBlock> up_blocks;
  nn::GroupNorm conv_norm_out;
  nn::Conv2d conv_out;
};

UNet2DConditionModel::Network::Network(const UNetConfig& unet, const nn::TensorSource& source)
    : config(unet),
      traits(read_traits(unet)),
      placement(source.placement()),
      act(nn::activation(unet.act_fn, "unet")),
      act_is_silu(act == nn::activation("silu", "unet")),
      time_embedding(source.at("time_embedding"),
                     {unet.levels.front().channels, unet.time_embedding_dim}, act),
      conv_in(source.at("conv_in"),
              same_size_conv(unet.in_channels, unet.levels.front().channels, unet.conv_in_kernel)),
      conv_norm_out(source.at("conv_norm_out"),
                    {unet.levels.front().channels, unet.norm_num_groups, unet.norm_eps}),
      conv_out(source.at("conv_out"), same_size_conv(unet.levels.front().channels,
                                                     unet.out_channels, unet.conv_out_kernel)) {
  if (config.time_cond_proj_dim != 0) {
    cond_proj.emplace(
        source.at("time_embedding").at("cond_proj"),
        nn::Linear::Size{config.time_cond_proj_dim, config.levels.front().channels, false});
  }
  if (!config.class_embed_type.empty() || config.num_class_embeds != 0) {
    class_embedding.emplace(source.at("class_embedding"), config);
  }
  if (config.addition_embed_type == "text_time") {
    add_embedding.emplace(source.at("add_embedding"),
                          nn::TimestepEmbedding::Size{config.projection_class_embeddings_input_dim,
                                                      config.time_embedding_dim},
                          nn::activation("silu", "unet"));
  }
  const auto levels = static_cast<int64_t>(config.levels.size());
  int64_t channels = config.levels.front().channels;
  for (int64_t level = 0; level < levels; ++level) {
    const auto index = static_cast<std::size_t>(level);
    down_blocks.emplace_back(source.at("down_blocks").at(index), config,
                             DownBlock::Place{level, channels});
    channels = config.levels[index].channels;
  }
  if (config.mid_block != MidBlock::kUnsaid) {
    mid_block.emplace(source.at("mid_block"), config,
                      config.mid_block == MidBlock::kCrossAttention);
  } else if (source.has("mid_block.resnets.0.norm1.weight")) {
    mid_block.emplace(source.at("mid_block"), config, true);
  }
  for (int64_t i = 0; i < levels; ++i) {
    up_blocks.emplace_back(source.at("up_blocks").at(static_cast<std::size_t>(i)), config,
                           levels - 1 - i);
  }
  source.finish();
}

void UNet2DConditionModel::Network::check(const UNetInput& input) const {
  want_shape(input.sample, "sample", {-1, config.in_channels, -1, -1});
  const int64_t batch = input.sample.size(0);
  want_shape(input.timesteps, "timesteps", {batch});
  want_shape(input.encoder_hidden_states, "encoder_hidden_states",
             {batch, -1, config.cross_attention_dim});
  if (input.timestep_cond.defined()) {
    if (!cond_proj) {
      throw Failure(ErrorCode::kInvalidModel,
                    "[unet] has no time_cond_proj_dim, got timestep_cond");
    }
    want_shape(input.timestep_cond, "timestep_cond", {batch, config.time_cond_proj_dim});
  }
  if (!add_embedding) return;
  want_shape(input.text_embeds, "text_embeds", {batch, -1});
  want_shape(input.time_ids, "time_ids", {batch, -1});
  const int64_t width =
      input.text_embeds.size(1) + input.time_ids.size(1) * config.addition_time_embed_dim;
  if (width != config.projection_class_embeddings_input_dim) {
    throw Failure(ErrorCode::kInvalidModel,
                  "[unet] want text_embeds and time_ids of " +
                      std::to_string(config.projection_class_embeddings_input_dim) +
                      " values together, got " + std::to_string(input.text_embeds.size(1)) + " + " +
                      std::to_string(input.time_ids.size(1)) + " x " +
                      std::to_string(config.addition_time_embed_dim));
  }
}

at::Tensor UNet2DConditionModel::Network::time_embedding_of(const UNetInput& input,
                                                            const nn::RowAdapters& adapters) const {
  const int64_t batch = input.sample.size(0);
  const at::ScalarType compute = placement.compute;
  const at::Tensor timesteps = input.timesteps.to(placement.device, at::kFloat);
  at::Tensor emb =
      nn::sinusoidal_embedding(timesteps, sinusoid(config, config.levels.front().channels))
          .to(compute);  // [B, C0]
  if (input.timestep_cond.defined()) {
    emb = emb + (*cond_proj)(input.timestep_cond.to(placement.device, compute), adapters);
  }
  emb = time_embedding(emb, adapters);  // [B, T]
  if (class_embedding) {
    if (!input.class_labels.defined()) {
      throw Failure(ErrorCode::kInvalidModel, "[unet] want class_labels, got none");
    }
    emb =
        emb + (*class_embedding)(input.class_labels.to(placement.device), batch, compute, adapters);
  }
  if (add_embedding) {
    const at::Tensor ids = input.time_ids.to(placement.device, at::kFloat).flatten();
    const at::Tensor times =
        nn::sinusoidal_embedding(ids, sinusoid(config, config.addition_time_embed_dim));
    const at::Tensor text = input.text_embeds.to(placement.device, compute);
    const at::Tensor joined = at::cat({text, times.view({batch, -1}).to(compute)}, 1);
    emb = emb + (*add_embedding)(joined, adapters);  // [B, T]
  }
  return emb;
}

UNet2DConditionModel::UNet2DConditionModel(const weights::Config& config,
                                           const nn::TensorSource& source)
    : network_(std::make_unique<const Network>(read_unet_config(config), source)) {}

UNet2DConditionModel::UNet2DConditionModel(UNet2DConditionModel&&) noexcept = default;
UNet2DConditionModel::~UNet2DConditionModel() = default;

const UNet2DConditionModel::Traits& UNet2DConditionModel::traits() const {
  return network_->traits;
}

UNet2DConditionModel::Traits UNet2DConditionModel::traits_of(const weights::Config& config) {
  return read_traits(read_unet_config(config));
}

at::Tensor UNet2DConditionModel::forward(const UNetInput& input,
                                         const nn::RowAdapters& adapters) const {
  const Network& net = *network_;
  net.check(input);
  const nn::Placement& place = net.placement;

  const UNetContext context{
      .temb = net.act(net.time_embedding_of(input, adapters)),  // [B, T]
      .encoder_hidden_states = input.encoder_hidden_states.to(place.device, place.compute),
      .adapters = adapters};

  at::Tensor x = input.sample.to(place.device, place.compute);  // [B, in, h, w]
  if (net.config.center_input_sample) x = x * 2 - 1;
  x = net.conv_in(x.contiguous(at::MemoryFormat::ChannelsLast), adapters);  // [B, C0, h, w]

  Skips skips{x};
  for (const DownBlock& block : net.down_blocks) x = block(std::move(x), context, skips);
  if (net.mid_block) x = (*net.mid_block)(std::move(x), context);  // [B, Cn, h/2^n, w/2^n]
  for (const UpBlock& block : net.up_blocks) x = block(std::move(x), context, skips);

  x = net.act_is_silu ? net.conv_norm_out.silu(x, adapters)
                      : net.act(net.conv_norm_out(x, adapters));  // [B, C0, h, w]
  x = net.conv_out(x, adapters);                                  // [B, out, h, w]
  return x.to(at::kFloat).contiguous();
}

}  // namespace limner::engine::models
