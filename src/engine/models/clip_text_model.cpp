#include "engine/models/clip_text_model.h"

#include <ATen/ATen.h>

#include <string>
#include <utility>

#include "base/error.h"
#include "engine/kernels/attention.h"
#include "engine/nn/layers.h"

namespace limner::engine::models {
namespace {

struct ClipTextConfig {
  int64_t vocab_size, hidden_size, intermediate_size, projection_dim;
  int64_t num_hidden_layers, num_attention_heads, max_position_embeddings;
  int64_t eos_token_id;
  double layer_norm_eps;
  nn::Activation hidden_act;
};

// What transformers 4 and 5 write into every config, whatever the model; none of it changes this
// forward.
void ignore_generic_keys(const weights::Config& config) {
  config.ignore({"architectures",
                 "model_type",
                 "transformers_version",
                 "torch_dtype",
                 "dtype",
                 "name_or_path",
                 "initializer_factor",
                 "initializer_range",
                 "attention_dropout",
                 "dropout",
                 "gradient_checkpointing",
                 "output_attentions",
                 "output_hidden_states",
                 "output_past",
                 "return_dict",
                 "use_return_dict",
                 "use_cache",
                 "torchscript",
                 "use_bfloat16",
                 "tf_legacy_loss",
                 "tokenizer_class",
                 "prefix",
                 "problem_type",
                 "finetuning_task",
                 "task_specific_params",
                 "id2label",
                 "label2id",
                 "num_labels",
                 "tie_word_embeddings",
                 "tie_encoder_decoder",
                 "is_encoder_decoder",
                 "chunk_size_feed_forward",
                 "cross_attention_hidden_size",
                 "decoder_start_token_id",
                 "sep_token_id",
                 "pad_token_id",
                 "bos_token_id",
                 "projection_dim"});
  // Settings of text generation.
  config.ignore({"max_length",
                 "min_length",
                 "do_sample",
                 "early_stopping",
                 "num_beams",
                 "num_beam_groups",
                 "diversity_penalty",
                 "temperature",
                 "top_k",
                 "top_p",
                 "typical_p",
                 "repetition_penalty",
                 "length_penalty",
                 "no_repeat_ngram_size",
                 "encoder_no_repeat_ngram_size",
                 "bad_words_ids",
                 "num_return_sequences",
                 "output_scores",
                 "return_dict_in_generate",
                 "forced_bos_token_id",
                 "forced_eos_token_id",
                 "remove_invalid_values",
                 "exponential_decay_length_penalty",
                 "suppress_tokens",
                 "begin_suppress_tokens"});
  config.only("is_decoder", false);
  config.only("add_cross_attention", false);
  if (const nlohmann::json& pruned = config.raw("pruned_heads");
      !pruned.is_null() && !pruned.empty()) {
    config.fail("pruned_heads", "pruned attention heads are not supported");
  }
}

ClipTextConfig read_config(const weights::Config& config, bool with_projection) {
  constexpr int64_t kWidest = 65536;
  ClipTextConfig result{};
  result.vocab_size = config.integer_in("vocab_size", 49408, 1, 1 << 24);
  result.hidden_size = config.integer_in("hidden_size", 512, 1, kWidest);
  result.intermediate_size = config.integer_in("intermediate_size", 2048, 1, 4 * kWidest);
  if (with_projection) result.projection_dim = config.integer_in("projection_dim", 512, 1, kWidest);
  result.num_hidden_layers = config.integer_in("num_hidden_layers", 12, 1, 1000);
  result.num_attention_heads = config.integer_in("num_attention_heads", 8, 1, kWidest);
  result.max_position_embeddings = config.integer_in("max_position_embeddings", 77, 1, kWidest);
  result.eos_token_id = config.integer("eos_token_id", 49407);
  result.layer_norm_eps = config.number("layer_norm_eps", 1e-5);
  result.hidden_act =
      nn::activation(config.text("hidden_act", "quick_gelu"), config.where() + ": 'hidden_act'");
  if (result.hidden_size % result.num_attention_heads != 0) {
    config.fail("num_attention_heads",
                "want a divisor of hidden_size = " + std::to_string(result.hidden_size) + ", got " +
                    std::to_string(result.num_attention_heads));
  }
  ignore_generic_keys(config);
  config.finish();
  return result;
}

class ClipAttention {
 public:
  ClipAttention(const nn::TensorSource& source, const ClipTextConfig& config)
      : heads_(config.num_attention_heads),
        qkv_(nn::Linear::fused({source.at("q_proj"), source.at("k_proj"), source.at("v_proj")},
                               {.in = config.hidden_size, .out = config.hidden_size})),
        out_proj_(source.at("out_proj"), {.in = config.hidden_size, .out = config.hidden_size}) {}

  // `mask` [B, 1, L, L]: true where a query may look; undefined: causal.
  at::Tensor operator()(const at::Tensor& x, const nn::RowAdapters& adapters,
                        const at::Tensor& mask) const {
    const auto qkv = qkv_(x, adapters).chunk(3, -1);  // 3 of [B, L, C]
    return out_proj_(mask.defined() ? masked(qkv[0], qkv[1], qkv[2], mask)
                                    : kernels::attention(qkv[0], qkv[1], qkv[2],
                                                         {.heads = heads_, .causal = true}),
                     adapters);
  }

 private:
  at::Tensor masked(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const at::Tensor& mask) const {
    const auto split = [&](const at::Tensor& x) {
      return x.unflatten(-1, {heads_, x.size(2) / heads_}).transpose(1, 2);  // [B, H, L, D]
    };
    return at::scaled_dot_product_attention(split(q), split(k), split(v), mask)
        .transpose(1, 2)
        .flatten(2);
  }

  int64_t heads_;
  nn::Linear qkv_, out_proj_;
};

class ClipEncoderLayer {
 public:
  ClipEncoderLayer(const nn::TensorSource& source, const ClipTextConfig& config)
      : layer_norm1_(source.at("layer_norm1"), config.hidden_size, config.layer_norm_eps),
        self_attn_(source.at("self_attn"), config),
        layer_norm2_(source.at("layer_norm2"), config.hidden_size, config.layer_norm_eps),
        fc1_(source.at("mlp").at("fc1"),
             {.in = config.hidden_size, .out = config.intermediate_size}),
        fc2_(source.at("mlp").at("fc2"),
             {.in = config.intermediate_size, .out = config.hidden_size}),
        act_(config.hidden_act) {}

  at::Tensor operator()(const at::Tensor& x, const nn::RowAdapters& adapters,
                        const at::Tensor& mask) const {
    const at::Tensor h =
        self_attn_(layer_norm1_(x, adapters), adapters, mask).add_(x);  // [B, L, C]
    return fc2_(act_(fc1_(layer_norm2_(h, adapters), adapters)), adapters).add_(h);
  }

 private:
  nn::LayerNorm layer_norm1_;
  ClipAttention self_attn_;
  nn::LayerNorm layer_norm2_;
  nn::Linear fc1_, fc2_;
  nn::Activation act_;
};

// [B, 1, L, L]: causal, and only keys that are attended.
at::Tensor causal_mask(const at::Tensor& attended) {
  const int64_t length = attended.size(1);
  const at::Tensor causal = at::ones({length, length}, attended.options()).tril();
  return causal.logical_and(attended.unsqueeze(1).unsqueeze(1));
}

// transformers 5 writes a CLIPTextModel without the `text_model.` prefix that all others have.
nn::TensorSource text_model_of(const nn::TensorSource& root) {
  return root.has("text_model.embeddings.token_embedding.weight") ? root.at("text_model") : root;
}

}  // namespace

struct ClipTextModel::Network {
  Network(const weights::Config& json, const nn::TensorSource& root, bool with_projection)
      : config(read_config(json, with_projection)),
        where(json.where()),
        token_embedding(text_model_of(root).at("embeddings.token_embedding"),
                        {.rows = config.vocab_size, .width = config.hidden_size}),
        position_embedding(text_model_of(root).at("embeddings.position_embedding"),
                           {.rows = config.max_position_embeddings, .width = config.hidden_size}),
        final_layer_norm(text_model_of(root).at("final_layer_norm"), config.hidden_size,
                         config.layer_norm_eps) {
    const nn::TensorSource source = text_model_of(root);
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
      layers.emplace_back(source.at("encoder.layers").at(static_cast<std::size_t>(i)), config);
    }
    if (with_projection) {
      text_projection.emplace(
          root.at("text_projection"),
          nn::Linear::Size{.in = config.hidden_size, .out = config.projection_dim, .bias = false});
    } else {
      root.skip("text_projection.weight");
    }
    source.skip("embeddings.position_ids");
    root.finish();
  }

  void check(const at::Tensor& ids) const {
    if (ids.dim() != 2 || ids.size(1) > config.max_position_embeddings || ids.size(1) < 1) {
      throw Failure(ErrorCode::kInvalidArgument,
                    where + ": want ids [batch, 1.." +
                        std::to_string(config.max_position_embeddings) + "], got " +
                        std::to_string(ids.dim() == 2 ? ids.size(1) : -1) + " positions");
    }
    const int64_t lowest = ids.min().item<int64_t>(), highest = ids.max().item<int64_t>();
    if (lowest < 0 || highest >= config.vocab_size) {
      throw Failure(ErrorCode::kInvalidModel,
                    where + ": the tokenizer gave id " +
                        std::to_string(lowest < 0 ? lowest : highest) +
                        ", outside 'vocab_size' = " + std::to_string(config.vocab_size));
    }
  }

  // Where each row's text ends. Configs from before transformers 4.31 say 2, which was never the
  // id: there the highest id counts. Otherwise the first eos; without one, position 0.
  at::Tensor end_positions(const at::Tensor& ids) const {
    return config.eos_token_id == 2 ? ids.argmax(-1)
                                    : ids.eq(config.eos_token_id).to(at::kInt).argmax(-1);
  }

  ClipTextConfig config;
  std::string where;
  nn::Embedding token_embedding, position_embedding;
  nn::LayerNorm final_layer_norm;
  std::vector<ClipEncoderLayer> layers;
  std::optional<nn::Linear> text_projection;
};

ClipTextModel::ClipTextModel(const weights::Config& config, const nn::TensorSource& source,
                             bool with_projection)
    : network_(std::make_unique<const Network>(config, source, with_projection)) {}

ClipTextModel::ClipTextModel(ClipTextModel&&) noexcept = default;
ClipTextModel::~ClipTextModel() = default;

ClipTextOutput ClipTextModel::forward(const at::Tensor& ids, const nn::RowAdapters& adapters,
                                      const ClipTextChanges& changes) const {
  const Network& net = *network_;
  net.check(ids);
  at::Tensor tokens = net.token_embedding(ids);  // [B, L, C]
  for (const auto& [position, vectors] : changes.insertions) {
    tokens.narrow(1, position, vectors.size(0)).copy_(vectors);
  }
  const at::Tensor mask = changes.attended.defined() ? causal_mask(changes.attended) : at::Tensor();
  const at::Tensor positions = at::arange(ids.size(1), ids.options());

  ClipTextOutput output;
  output.hidden_states.reserve(net.layers.size() + 1);
  output.hidden_states.push_back(tokens + net.position_embedding(positions));  // [B, L, C]
  for (const ClipEncoderLayer& layer : net.layers) {
    output.hidden_states.push_back(
        layer(output.hidden_states.back(), adapters, mask));  // [B, L, C]
  }
  output.last_hidden_state = net.final_layer_norm(output.hidden_states.back());

  const at::Tensor rows = at::arange(ids.size(0), ids.options());
  output.pooled = output.last_hidden_state.index({rows, net.end_positions(ids)});  // [B, C]
  if (net.text_projection) output.pooled = (*net.text_projection)(output.pooled, adapters);
  return output;
}

at::Tensor ClipTextModel::final_layer_norm(const at::Tensor& hidden_state) const {
  return network_->final_layer_norm(hidden_state);
}

ClipTextModel::Traits ClipTextModel::traits_of(const weights::Config& config,
                                               bool with_projection) {
  const ClipTextConfig read = read_config(config, with_projection);
  return {.hidden_size = read.hidden_size, .layers = read.num_hidden_layers};
}

int64_t ClipTextModel::hidden_size() const {
  return network_->config.hidden_size;
}
int64_t ClipTextModel::max_positions() const {
  return network_->config.max_position_embeddings;
}
int64_t ClipTextModel::vocabulary_size() const {
  return network_->config.vocab_size;
}
int64_t ClipTextModel::layers() const {
  return network_->config.num_hidden_layers;
}

}  // namespace limner::engine::models
