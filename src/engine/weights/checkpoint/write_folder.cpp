#include <fmt/format.h>

#include <fstream>
#include <iterator>

#include "base/file_hash.h"
#include "engine/weights/checkpoint/convert.h"
#include "engine/weights/checkpoint/convert_dtype.h"
#include "engine/weights/checkpoint/folder_writer.h"
#include "engine/weights/checkpoint/write_key.h"
#include "engine/weights/inspect.h"
#include "engine/weights/json.h"
#include "engine/weights/message_text.h"

namespace limner::engine::weights {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string weights_name(const ComponentEntry& entry, const std::string& variant) {
  const char* stem = entry.library == "transformers" ? "model" : "diffusion_pytorch_model";
  return fmt::format("{}{}{}.safetensors", stem, variant.empty() ? "" : ".", variant);
}

// transformers 5 writes CLIPTextModel without the prefix that version 4 had; both read both. Names
// of a single file are version 4's, so a folder that says version 5 gets its own back.
std::string written_name(const ModelFolder& model, const std::string& component,
                         const std::string& name) {
  if (!model.single_file || model.components.at(component).class_name != "CLIPTextModel")
    return name;
  const Config config = model.config(component);
  const json& version = config.raw("transformers_version");
  const bool five = version.is_string() && version.get<std::string>() >= "5" &&
                    version.get<std::string>().find('.') == 1;
  constexpr std::string_view kPrefix = "text_model.";
  return five && name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
}

const char* torch_name(DType dtype) {
  return dtype == DType::kF16 ? "float16" : dtype == DType::kBF16 ? "bfloat16" : "float32";
}

// A component's config, whose note of the dtype follows the weights.
std::string config_text(const std::string& text, std::optional<DType> dtype) {
  if (!dtype) return text;
  json config = json::parse(text, nullptr, false);
  bool changed = false;
  for (const char* key : {"dtype", "torch_dtype"}) {
    if (!config.is_object() || !config.contains(key)) continue;
    changed = changed || config[key] != torch_name(*dtype);
    config[key] = torch_name(*dtype);
  }
  return changed ? config.dump(2) + "\n" : text;
}

class FolderWork {
 public:
  FolderWork(const ModelFolder& model, const WriteOptions& options)
      : model_(model), options_(options) {
    for (const auto& [component, entry] : model.components) {
      if (!model.has_weights(component)) continue;
      weights_[component] = model.weights(component, options.source_variant).value_or_throw();
      total_ += weights_[component]->bytes();
    }
    if (weights_.empty())
      throw Failure(ErrorCode::kInvalidModel, quote(model.root.string()) + ": has no weights");
  }

  WriteReport write() {
    FolderWriter writer(options_.output, write_key(model_, weights_, options_));
    for (const auto& [component, weights] : weights_) add_weights(writer, component, *weights);
    for (const auto& [path, text] : text_files(model_)) {
      if (path == kManifestName) continue;
      writer.add_text(path,
                      path.ends_with("/config.json") ? config_text(text, options_.dtype) : text);
    }
    writer.finish(about());
    return report_;
  }

 private:
  void add_weights(FolderWriter& writer, const std::string& component, const Weights& weights) {
    const std::string file =
        component + "/" + weights_name(model_.components.at(component), options_.variant);
    report_.tensors += weights.names().size();
    report_.bytes += weights.bytes();
    if (writer.has(file)) {
      report_.kept.push_back(file);
      done_ += weights.bytes();
      return;
    }
    std::vector<TensorPlan> plans;
    std::map<std::string, std::string> stored_names;
    for (const std::string& name : weights.names()) {
      const TensorView& view = *weights.find(name);
      const std::string written = written_name(model_, component, name);
      const bool recast = options_.dtype && is_convertible(view.dtype);
      plans.push_back({written, recast ? *options_.dtype : view.dtype, view.shape});
      stored_names[written] = name;
    }
    writer.add_tensors(file, std::move(plans), [&](const TensorPlan& plan) {
      return make(component, stored_names.at(plan.name), weights, plan.dtype);
    });
  }

  std::span<const std::byte> make(const std::string& component, const std::string& name,
                                  const Weights& weights, DType dtype) {
    const TensorView& view = *weights.find(name);
    if (last_ != nullptr) last_owner_->release(*last_);
    last_ = &view;
    last_owner_ = &weights;
    weights.prefetch(view).value_or_throw();
    done_ += view.bytes.size();
    if (options_.progress) options_.progress(done_, total_);
    std::vector<float> values;
    if (options_.edit && options_.edit(component, name, view, values)) {
      buffer_ = from_floats(dtype, values, name);
      return buffer_;
    }
    if (dtype == view.dtype) return view.bytes;
    buffer_ = from_floats(dtype, to_floats(view.dtype, view.bytes), name);
    return buffer_;
  }

  json about() const {
    json inputs = json::array();
    for (const ManifestInput& input : options_.inputs) {
      json entry = {{"role", input.role},
                    {"name", input.path.filename().string()},
                    {"sha256", content_hash(input.path)}};
      if (input.role != "model") entry["scale"] = input.scale;
      if (!input.detail.empty()) entry["scales"] = input.detail;
      inputs.push_back(std::move(entry));
    }
    return {{"format", 1},
            {"tool", "limner " LIMNER_VERSION},
            {"kind", options_.kind},
            {"dtype", options_.dtype ? json(torch_name(*options_.dtype)) : json(nullptr)},
            {"variant", options_.variant},
            {"build_key", options_.build_key},
            {"inputs", inputs}};
  }

  const ModelFolder& model_;
  const WriteOptions& options_;
  std::map<std::string, std::shared_ptr<const Weights>> weights_;
  std::uint64_t total_ = 0, done_ = 0;
  std::vector<std::byte> buffer_;
  const TensorView* last_ = nullptr;
  const Weights* last_owner_ = nullptr;
  WriteReport report_;
};

}  // namespace

std::string build_key_of(const fs::path& folder) {
  try {
    const json manifest = read_json(folder / kManifestName, kManifestName);
    const auto key = manifest.find("build_key");
    return key != manifest.end() && key->is_string() ? key->get<std::string>() : "";
  } catch (const Failure&) {
    return "";
  } catch (const json::exception&) {
    return "";  // a manifest that is no object
  }
}

std::string content_hash(const fs::path& path) {
  std::error_code error;
  if (fs::is_regular_file(path, error)) {
    const auto hash = file_sha256(path);
    return hash.ok() ? *hash : "";
  }
  const auto inspection = inspect(path, {.hashes = true, .values = false});
  return inspection.ok() ? inspection->sha256 : "";
}

std::map<std::string, std::string> text_files(const ModelFolder& model) {
  if (model.single_file) return model.single_file->texts();
  std::map<std::string, std::string> texts;
  const auto add_from = [&](const fs::path& folder, const std::string& prefix) {
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
      const std::string file = entry->path().filename().string();
      const std::string extension = entry->path().extension().string();
      const bool text = (extension == ".json" || extension == ".txt") &&
                        file.find(".safetensors.index") == std::string::npos;
      if (!text || !entry->is_regular_file(error)) continue;
      std::ifstream in(entry->path(), std::ios::binary);
      texts[prefix + file] = {std::istreambuf_iterator<char>(in), {}};
    }
  };
  add_from(model.root, "");
  for (const auto& [component, entry] : model.components)
    add_from(model.root / component, component + "/");
  return texts;
}

Result<WriteReport> write_folder(const ModelFolder& model, const WriteOptions& options) {
  try {
    return FolderWork(model, options).write();
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const std::exception& exception) {
    return Error{ErrorCode::kIo, fmt::format("{}: cannot be written ({})",
                                             quote(options.output.string()), exception.what())};
  }
}

}  // namespace limner::engine::weights
