#include <fmt/format.h>

#include <cstring>

#include "engine/weights/checkpoint/convert.h"
#include "engine/weights/checkpoint/convert_dtype.h"
#include "engine/weights/checkpoint/name_table.h"
#include "engine/weights/checkpoint/write_key.h"
#include "engine/weights/message_text.h"

namespace limner::engine::weights {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// A tokenizer up to this size travels in the header; CLIP's own (1.4 MB) is found elsewhere.
constexpr std::size_t kLargestTokenizer = 512u << 10;

struct Place {
  std::string prefix;
  bool open_clip = false;
};

// Where the families keep their networks.
std::map<std::string, Place> places(const ModelFolder& model) {
  std::map<std::string, Place> found = {{"unet", {"model.diffusion_model."}},
                                        {"vae", {"first_stage_model."}}};
  if (model.has("text_encoder_2")) {
    const bool both = model.has("text_encoder");
    if (both) found["text_encoder"] = {"conditioner.embedders.0.transformer."};
    found["text_encoder_2"] = {
        both ? "conditioner.embedders.1.model." : "conditioner.embedders.0.model.", true};
  } else if (model.has("text_encoder")) {
    // SD 1 has CLIP's own tower and SD 2 OpenCLIP's; what they compute differs in this.
    const bool open_clip =
        model.config("text_encoder").text("hidden_act", "quick_gelu") != "quick_gelu";
    found["text_encoder"] = {
        open_clip ? "cond_stage_model.model." : "cond_stage_model.transformer.", open_clip};
  }
  return found;
}

// Old folders spell the VAE's attention differently, and transformers 5 leaves the prefix out.
std::string current_name(const std::string& component, std::string name) {
  if (component.starts_with("text_encoder")) {
    return name.starts_with("text_model.") || name.starts_with("text_projection.")
               ? name
               : "text_model." + name;
  }
  if (component != "vae") return name;
  for (const auto& [old, now] :
       {std::pair{".query.", ".to_q."}, std::pair{".key.", ".to_k."},
        std::pair{".value.", ".to_v."}, std::pair{".proj_attn.", ".to_out.0."}}) {
    if (const auto at = name.find(old); at != std::string::npos)
      return name.replace(at, std::strlen(old), now);
  }
  return name;
}

class SingleFileWork {
 public:
  SingleFileWork(const ModelFolder& model, const WriteOptions& options)
      : model_(model), options_(options) {
    const auto where = places(model);
    for (const auto& [component, entry] : model.components) {
      if (!model.has_weights(component)) continue;
      const auto place = where.find(component);
      if (place == where.end()) {
        throw Failure(ErrorCode::kUnsupported,
                      fmt::format("{}: single-file checkpoints have no place for {}",
                                  quote(model.root.string()), quote(component)));
      }
      weights_[component] = model.weights(component, options.source_variant).value_or_throw();
      add(component, place->second);
    }
    add_markers();
  }

  WriteReport write() {
    std::vector<TensorPlan> plans;
    for (const auto& [name, target] : targets_) plans.push_back(target.plan);
    stream_safetensors(options_.output, std::move(plans),
                       [&](const TensorPlan& plan) { return make(plan); },
                       {.metadata = metadata(),
                        .resume_key = write_key(model_, weights_, options_),
                        .kept = [&](const TensorPlan& plan) { keep(plan); }})
        .value_or_throw();
    return report_;
  }

 private:
  struct Source {
    const Weights* weights;
    const TensorView* view;
    std::string name;
  };
  struct Target {
    TensorPlan plan;
    TensorForm form = TensorForm::kSame;
    std::vector<Source> sources;  // one, or query, key and value
  };

  void add(const std::string& component, const Place& place) {
    const Weights& weights = *weights_.at(component);
    NameSet names;
    for (const std::string& name : weights.names()) names.insert(current_name(component, name));
    const NameTable table = component == "unet"  ? unet_names(names)
                            : component == "vae" ? vae_names(names)
                            : place.open_clip    ? open_clip_names(names)
                                                 : clip_names(names);
    for (const std::string& stored : weights.names()) {
      if (stored.ends_with("position_ids")) continue;
      const std::string name = current_name(component, stored);
      const auto renamed = table.to_ldm(name);
      if (!renamed) {
        throw Failure(ErrorCode::kUnsupported,
                      fmt::format("{}: {} has no name in single-file checkpoints", quote(component),
                                  quote(name)));
      }
      Target& target = targets_[place.prefix + renamed->name];
      const TensorView* view = weights.find(stored);
      const auto part =
          static_cast<std::size_t>(renamed->form == TensorForm::kThirds ? part_of(name) : 0);
      if (target.sources.size() <= part) target.sources.resize(part + 1);
      target.sources[part] = {&weights, view, name};
      target.form = renamed->form;
      report_.bytes += view->bytes.size();
      report_.tensors += 1;
    }
    for (auto& [name, target] : targets_) plan(name, target);
  }

  void plan(const std::string& name, Target& target) {
    const bool thirds = target.form == TensorForm::kThirds;
    for (const Source& source : target.sources) {
      const bool fits = source.view != nullptr &&
                        source.view->shape == target.sources.front().view->shape &&
                        source.view->dtype == target.sources.front().view->dtype;
      if (!fits || target.sources.size() != (thirds ? 3u : 1u)) {
        throw Failure(ErrorCode::kInvalidModel,
                      fmt::format("{}: query, key and value of {} want to be three of one shape",
                                  quote(model_.root.string()), quote(name)));
      }
    }
    const TensorView& first = *target.sources.front().view;
    const bool recast = options_.dtype && is_convertible(first.dtype);
    target.plan = {name, recast ? *options_.dtype : first.dtype, first.shape};
    std::vector<std::int64_t>& shape = target.plan.shape;
    if (thirds && !shape.empty()) shape[0] *= 3;
    // Folders of old diffusers may keep them as convolutions already.
    if (target.form == TensorForm::kSqueezed && shape.size() == 2)
      shape.insert(shape.end(), {1, 1});
    if (target.form == TensorForm::kTransposed) {
      if (shape.size() != 2)
        throw Failure(ErrorCode::kInvalidModel, quote(name) + " wants to be a matrix");
      std::swap(shape[0], shape[1]);
    }
  }

  // Zero-length tensors by which other tools know what the network predicts; SD 2 has none.
  void add_markers() {
    const json config = model_.scheduler_config();
    const auto text = config.find("prediction_type");
    if (text == config.end() || *text != "v_prediction" ||
        targets_.contains("cond_stage_model.model.token_embedding.weight"))
      return;
    targets_["v_pred"].plan = {"v_pred", DType::kF32, {0}};
    if (config.value("rescale_betas_zero_snr", false))
      targets_["ztsnr"].plan = {"ztsnr", DType::kF32, {0}};
  }

  void keep(const TensorPlan& plan) {
    for (const Source& source : targets_.at(plan.name).sources) done_ += source.view->bytes.size();
    report_.kept_bytes = done_;
  }

  std::span<const std::byte> make(const TensorPlan& plan) {
    const Target& target = targets_.at(plan.name);
    if (target.sources.empty()) return {};
    std::vector<std::byte> joined;
    for (const Source& source : target.sources) {
      source.weights->prefetch(*source.view).value_or_throw();
      joined.insert(joined.end(), source.view->bytes.begin(), source.view->bytes.end());
      source.weights->release(*source.view);
      done_ += source.view->bytes.size();
    }
    if (options_.progress) options_.progress(done_, report_.bytes);
    const DType from = target.sources.front().view->dtype;
    if (target.form == TensorForm::kTransposed)
      joined = transposed(joined, target.sources.front().view->shape, bits(from) / 8);
    buffer_ = from == plan.dtype ? std::move(joined)
                                 : from_floats(plan.dtype, to_floats(from, joined), plan.name);
    return buffer_;
  }

  static std::vector<std::byte> transposed(const std::vector<std::byte>& bytes,
                                           const std::vector<std::int64_t>& shape,
                                           std::size_t size) {
    const auto rows = static_cast<std::size_t>(shape[0]),
               columns = static_cast<std::size_t>(shape[1]);
    std::vector<std::byte> out(bytes.size());
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t c = 0; c < columns; ++c) {
        std::memcpy(out.data() + (c * rows + r) * size, bytes.data() + (r * columns + c) * size,
                    size);
      }
    }
    return out;
  }

  std::map<std::string, std::string> metadata() const {
    std::map<std::string, std::size_t> tokenizer_bytes;
    const auto folder_of = [](const std::string& path) { return path.substr(0, path.find('/')); };
    const auto texts = text_files(model_);
    for (const auto& [path, text] : texts) {
      if (path.starts_with("tokenizer")) tokenizer_bytes[folder_of(path)] += text.size();
    }
    json files = json::object();
    for (const auto& [path, text] : texts) {
      const bool large =
          path.starts_with("tokenizer") && tokenizer_bytes[folder_of(path)] > kLargestTokenizer;
      if (!large && path != "limner-manifest.json") files[path] = text;
    }
    return {{"format", "pt"}, {kFolderTextsKey, files.dump()}};
  }

  const ModelFolder& model_;
  const WriteOptions& options_;
  std::map<std::string, std::shared_ptr<const Weights>> weights_;
  std::map<std::string, Target> targets_;
  std::uint64_t done_ = 0;
  std::vector<std::byte> buffer_;
  WriteReport report_;
};

}  // namespace

Result<WriteReport> write_single_file(const ModelFolder& model, const WriteOptions& options) {
  try {
    std::error_code ignored;
    if (fs::exists(options.output, ignored)) {
      throw Failure(ErrorCode::kInvalidArgument,
                    fmt::format("{}: is there already; remove it or name another place",
                                quote(options.output.string())));
    }
    return SingleFileWork(model, options).write();
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const std::exception& exception) {
    return Error{ErrorCode::kIo, fmt::format("{}: cannot be written ({})",
                                             quote(options.output.string()), exception.what())};
  }
}

}  // namespace limner::engine::weights
