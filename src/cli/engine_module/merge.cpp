#include "cli/engine_module/merge.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "cli/lora_paths.h"
#include "cli/model_paths.h"
#include "engine/lora/bake.h"
#include "engine/weights/checkpoint/blend.h"
#include "engine/weights/checkpoint/convert_dtype.h"

namespace limner::cli {
namespace {

namespace fs = std::filesystem;
namespace weights = engine::weights;
namespace lora = engine::lora;
using weights::ModelFolder;
using weights::WriteOptions;
using weights::WriteReport;

Error wrong_usage(std::string message) {
  return {ErrorCode::kInvalidArgument, std::move(message)};
}

// The networks that adapters change.
lora::Networks networks(const ModelFolder& model, const std::string& variant) {
  lora::Networks found;
  for (const char* component : {"unet", "text_encoder", "text_encoder_2"}) {
    if (model.has(component) && model.has_weights(component))
      found[component] = model.weights(component, variant).value_or_throw();
  }
  return found;
}

class Merge {
 public:
  Merge(const MergeOptions& options, const Console& console)
      : options_(options), console_(console), folders_(model_folders()) {}

  Result<WriteReport> run() {
    const int modes = (options_.loras.empty() ? 0 : 1) + (options_.blend.empty() ? 0 : 1) +
                      (options_.difference.empty() ? 0 : 1);
    if (modes != 1)
      return wrong_usage("say what to merge: one of --lora, --blend and --add-difference");
    const std::size_t places = options_.loras.empty() ? 1 : 2;
    if (options_.places.size() != places) {
      return wrong_usage(places == 2 ? "--lora wants MODEL and OUT"
                                     : "--blend and --add-difference want OUT alone; the models "
                                       "come after the option");
    }
    write_.output = options_.places.back();
    write_.dtype = options_.dtype;
    write_.variant = options_.variant;
    write_.progress = [this](std::uint64_t done, std::uint64_t total) { show(done, total); };
    return options_.loras.empty() ? blend() : bake();
  }

 private:
  ModelFolder open(const std::string& name) {
    const fs::path path = resolve_model(name, folders_).value_or_throw();
    const weights::SingleFileOptions read = {
        .tokenizer = resolve_tokenizer(options_.tokenizer, folders_),
        .prediction = options_.prediction};
    return weights::read_model(path, read).value_or_throw();
  }

  Result<WriteReport> bake() {
    const ModelFolder model = open(options_.places.front());
    const lora::AdapterFolders adapter_folders = lora_folders({}, model.root);
    std::vector<AdapterToMerge> adapters;
    for (const std::string& text : options_.loras) {
      const lora::AdapterUse use = lora::parse_adapter_use(text).value_or_throw();
      adapters.push_back(
          {adapter_folders.find_path_or_name(use.name).value_or_throw(), use.scales});
    }
    return merge_adapters(model, adapters, options_.lora_allow_partial, write_);
  }

  Result<WriteReport> blend() {
    std::vector<std::pair<std::string, double>> wanted;
    if (!options_.difference.empty()) {
      if (options_.difference.size() != 3)
        return wrong_usage("--add-difference wants three models: A B C for A + alpha (B - C)");
      wanted = {{options_.difference[0], 1.0},
                {options_.difference[1], options_.alpha},
                {options_.difference[2], -options_.alpha}};
      write_.kind = "add-difference";
    } else {
      for (const std::string& term : options_.blend) wanted.push_back(parse_term(term));
      if (wanted.size() < 2) return wrong_usage("--blend wants two models at least");
      write_.kind = "blend";
    }
    std::vector<ModelFolder> models;
    for (const auto& [name, weight] : wanted) {
      models.push_back(open(name));
      write_.inputs.push_back({.role = "blend", .path = models.back().root, .scale = weight});
    }
    std::vector<weights::BlendTerm> terms;
    for (std::size_t i = 0; i < models.size(); ++i) terms.push_back({&models[i], wanted[i].second});
    write_.edit = weights::blend(std::move(terms));
    return weights::write_folder(models.front(), write_);
  }

  static std::pair<std::string, double> parse_term(const std::string& term) {
    const std::size_t at = term.rfind('=');
    char* end = nullptr;
    const double weight = at == std::string::npos ? 0 : std::strtod(term.c_str() + at + 1, &end);
    if (at == std::string::npos || at == 0 || end == term.c_str() + at + 1 || *end != '\0' ||
        !std::isfinite(weight)) {
      throw Failure(wrong_usage(
          fmt::format("'{}' is not of the form MODEL=WEIGHT, e.g. base=0.7", term.substr(0, 200))));
    }
    return {term.substr(0, at), weight};
  }

  void show(std::uint64_t done, std::uint64_t total) {
    if (!bar_) {
      bar_.emplace(console_, "merging", static_cast<std::int64_t>(total),
                   ProgressBar::Unit::kBytes);
    }
    bar_->update(static_cast<std::int64_t>(done));
  }

  const MergeOptions& options_;
  const Console& console_;
  std::vector<fs::path> folders_;
  WriteOptions write_;
  std::optional<ProgressBar> bar_;
};

}  // namespace

Result<WriteReport> merge_adapters(const ModelFolder& model,
                                   const std::vector<AdapterToMerge>& adapters, bool allow_partial,
                                   WriteOptions options) {
  const c10::InferenceMode no_gradients;
  try {
    const lora::ModelLayers layers(networks(model, options.source_variant));
    std::vector<lora::BakedAdapter> baked;
    options.kind = "merge";
    if (options.inputs.empty())
      options.inputs.push_back({.role = "model", .path = model.root, .scale = 1.0});
    for (const AdapterToMerge& adapter : adapters) {
      baked.push_back({lora::AdapterFile::read(adapter.file).value_or_throw(), adapter.scales});
      options.inputs.push_back({.role = "lora",
                                .path = adapter.file,
                                .scale = adapter.scales.unet,
                                .detail = adapter.scales.key()});
    }
    const lora::Baker baker(layers, std::move(baked), allow_partial);
    options.edit = [&](const std::string& component, const std::string& name,
                       const weights::TensorView& stored, std::vector<float>& values) {
      if (!weights::is_convertible(stored.dtype)) return false;
      std::vector<float> base = weights::to_floats(stored.dtype, stored.bytes);
      const std::optional<at::Tensor> merged =
          baker(component, name, at::from_blob(base.data(), stored.shape, at::kFloat));
      if (!merged) return false;
      const at::Tensor flat = merged->contiguous();
      values.assign(flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel());
      return true;
    };
    return weights::write_folder(model, options);
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const std::exception& exception) {
    return Error{ErrorCode::kInternal, fmt::format("[merge] {}", exception.what())};
  }
}

int merge(const MergeOptions& options, const Console& console) {
  const auto done = [&]() -> Result<WriteReport> {
    try {
      return Merge(options, console).run();
    } catch (const Failure& failure) {
      return failure.error();
    }
  }();
  if (!done.ok()) return console.fail(done.error());
  if (console.json()) {
    console.result(nlohmann::json{
        {"output", options.places.back()},
        {"tensors", done->tensors},
        {"bytes", done->bytes},
        {"kept",
         done->kept}}.dump());
  } else {
    console.result(options.places.back());
  }
  return 0;
}

}  // namespace limner::cli
