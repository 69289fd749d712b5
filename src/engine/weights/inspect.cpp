#include "engine/weights/inspect.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <system_error>

#include "base/file_hash.h"
#include "engine/weights/checkpoint/single_file.h"
#include "engine/weights/finite.h"
#include "engine/weights/json.h"
#include "engine/weights/message_text.h"
#include "engine/weights/model_folder.h"
#include "engine/weights/weights.h"

namespace limner::engine::weights {
namespace {

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// Tokenizers and the like hold no weights; their config goes by another name.
std::string config_name(const std::string& class_name) {
  if (contains(class_name, "Tokenizer")) return "tokenizer_config.json";
  if (contains(class_name, "Scheduler")) return "scheduler_config.json";
  if (contains(class_name, "Processor") || contains(class_name, "FeatureExtractor"))
    return "preprocessor_config.json";
  return "config.json";
}

std::string family_of(const Inspection& inspection) {
  const std::string& pipeline = inspection.pipeline_class;
  if (pipeline.starts_with("StableDiffusionXL")) return "sdxl";
  if (pipeline.starts_with("StableDiffusion3")) return "sd3";
  if (pipeline.starts_with("Flux") && !pipeline.starts_with("Flux2")) return "flux";
  if (pipeline.starts_with("QwenImage")) return "qwen-image";
  if (!pipeline.starts_with("StableDiffusion") && !pipeline.starts_with("LatentConsistencyModel"))
    return "unknown";
  for (const ComponentReport& component : inspection.components) {
    if (component.name != "unet" || !component.config.is_object()) continue;
    const auto width = component.config.find("cross_attention_dim");
    if (width == component.config.end()) continue;
    if (*width == 768) return "sd1";
    if (*width == 1024) return "sd2";
  }
  return "unknown";
}

class Inspector {
 public:
  Inspector(std::filesystem::path root, const InspectOptions& options, Inspection& out)
      : root_(std::move(root)), options_(options), out_(out) {}

  void problem(std::string sentence) { out_.problems.push_back(std::move(sentence)); }

  FileReport file(const std::filesystem::path& path) {
    FileReport report;
    report.path = path.lexically_relative(root_).generic_string();
    std::error_code error;
    report.bytes = std::filesystem::file_size(path, error);
    if (error) {
      problem(fmt::format("{}: cannot be read ({})", quote(report.path), error.message()));
      report.bytes = 0;
    } else if (options_.hashes) {
      const auto hash = options_.between ? file_sha256(path, options_.between) : file_sha256(path);
      if (hash.ok())
        report.sha256 = *hash;
      else
        problem(fmt::format("{}: cannot be read", quote(report.path)));
    }
    return report;
  }

  void component(const std::string& name, const ComponentEntry& entry) {
    ComponentReport report;
    report.name = name;
    report.library = entry.library;
    report.class_name = entry.class_name;
    const std::filesystem::path folder = root_ / name;
    std::error_code error;
    if (!std::filesystem::is_directory(folder, error)) {
      problem(fmt::format("{}: the folder of this component ({}) is missing", name,
                          quote(entry.class_name)));
    } else {
      const std::string config = config_name(entry.class_name);
      read_config(folder / config, config, report);
      if (config == "config.json") read_weights(folder, report);
      read_other_files(folder, report);
    }
    out_.parameters += report.parameters;
    out_.bytes += report.bytes;
    out_.components.push_back(std::move(report));
  }

  void weights(const Weights& weights, ComponentReport& report) {
    std::vector<std::string> not_finite;
    const std::string where = report.name.empty() ? "" : report.name + ": ";
    for (const std::string& name : weights.names()) {
      const TensorView& view = *weights.find(name);
      const std::uint64_t elements = view.bytes.size() * 8 / bits(view.dtype);
      report.parameters_by_dtype[std::string(weights::name(view.dtype))] += elements;
      report.tensors += 1;
      report.parameters += elements;
      report.bytes += view.bytes.size();
      if (!options_.values) continue;
      if (const Result<void> there = weights.prefetch(view); !there.ok()) {
        problem(where + there.error().message);
        break;
      }
      if (!all_finite(view.dtype, view.bytes)) not_finite.push_back(quote(name));
      weights.release(view);
    }
    if (not_finite.empty()) return;
    constexpr std::size_t kShown = 5;
    const auto shown =
        not_finite.begin() + static_cast<std::ptrdiff_t>(std::min(kShown, not_finite.size()));
    problem(fmt::format(
        "{}{} hold{} NaN or infinity: {}{}", where,
        not_finite.size() == 1 ? "1 tensor" : fmt::format("{} tensors", not_finite.size()),
        not_finite.size() == 1 ? "s" : "", fmt::join(not_finite.begin(), shown, ", "),
        not_finite.size() > kShown ? ", ..." : ""));
  }

 private:
  void read_config(const std::filesystem::path& path, const std::string& name,
                   ComponentReport& report) {
    try {
      report.config = read_json(path, report.name + "/" + name);
    } catch (const Failure& failure) {
      // Tokenizers of old folders come without a config and are complete.
      const bool optional =
          name == "tokenizer_config.json" && failure.error().code == ErrorCode::kNotFound;
      if (!optional) problem(failure.error().message);
    }
  }

  void read_weights(const std::filesystem::path& folder, ComponentReport& report) {
    report.variants = Weights::variants(folder);
    const auto opened = Weights::open_component(folder);
    if (!opened.ok() && report.variants.size() > 1 && report.variants[0].empty() == false) {
      // Several variants and no plain files: each is complete by itself, so the first one speaks
      // for all.
      return add_weights(Weights::open_component(folder, report.variants[0]), report);
    }
    add_weights(opened, report);
  }

  void add_weights(const Result<std::shared_ptr<const Weights>>& opened, ComponentReport& report) {
    if (!opened.ok()) return problem(opened.error().message);
    weights(**opened, report);
    for (const auto& path : (*opened)->files()) report.files.push_back(file(path));
  }

  // Configs, vocabularies and indices: the text files that decide what the component does.
  void read_other_files(const std::filesystem::path& folder, ComponentReport& report) {
    std::set<std::filesystem::path> paths;
    std::error_code error;
    for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
      const std::string extension = entry->path().extension().string();
      std::error_code ignored;
      const bool wanted = extension == ".json" || extension == ".txt" || extension == ".model";
      if (wanted && entry->is_regular_file(ignored)) paths.insert(entry->path());
    }
    if (error) problem(fmt::format("{}: cannot be listed ({})", report.name, error.message()));
    for (const auto& path : paths) report.files.push_back(file(path));
  }

  std::filesystem::path root_;
  const InspectOptions& options_;
  Inspection& out_;
};

std::string hash_of_all(const Inspection& inspection) {
  std::map<std::string, std::string> lines;
  const auto add = [&](const std::vector<FileReport>& files) {
    for (const FileReport& file : files) lines[file.path] = file.sha256 + "  " + file.path + "\n";
  };
  add(inspection.files);
  for (const ComponentReport& component : inspection.components) add(component.files);
  std::string text;
  for (const auto& [path, line] : lines) text += line;
  return sha256_hex(std::as_bytes(std::span(text)));
}

// The networks of a checkpoint one by one, and what belongs to none of them as one more.
void describe_checkpoint(const std::shared_ptr<const Weights>& weights, const SingleFile& file,
                         Inspector& inspector, Inspection& out) {
  out.family = family_name(file.layout().family);
  out.pipeline_class = pipeline_class(file.layout());
  const nlohmann::json index = file.json("model_index.json");
  for (const auto& [name, component] : file.components()) {
    ComponentReport report;
    report.name = name;
    report.library = index.at(name).at(0);
    report.class_name = index.at(name).at(1);
    report.config = file.json(name + "/config.json");
    inspector.weights(*component, report);
    out.components.push_back(std::move(report));
  }
  ComponentReport rest;
  rest.class_name = "of no network";
  std::map<std::string, TensorView, std::less<>> left_over;
  for (const std::string& name : file.left_over()) left_over.emplace(name, *weights->find(name));
  inspector.weights(*Weights::of_views(weights, std::move(left_over), {}), rest);
  if (rest.tensors > 0) out.components.push_back(std::move(rest));
  for (const ComponentReport& component : out.components) {
    out.parameters += component.parameters;
    out.bytes += component.bytes;
  }
}

Result<Inspection> inspect_file(const std::filesystem::path& path, const InspectOptions& options) {
  const auto weights = Weights::open_file(path);
  if (!weights.ok()) return weights.error();
  Inspection out;
  out.path = path;
  out.family = "unknown";
  for (const std::string& name : (*weights)->names()) {
    const TensorView& view = *(*weights)->find(name);
    out.tensors.push_back({name, std::string(weights::name(view.dtype)), view.shape});
  }
  Inspector inspector(path.parent_path(), options, out);
  out.files.push_back(inspector.file(path));
  out.sha256 = out.files.front().sha256;
  try {
    describe_checkpoint(*weights, *SingleFile::open(path, {.headers_only = true}), inspector, out);
    return out;
  } catch (const Failure& failure) {
    // Any file of tensors may be looked at; what keeps it from being a model is worth saying.
    out.not_a_model = failure.error().message;
  }
  ComponentReport report;
  inspector.weights(**weights, report);
  out.parameters = report.parameters;
  out.bytes = report.bytes;
  out.components = {std::move(report)};
  return out;
}

}  // namespace

Result<Inspection> inspect(const std::filesystem::path& path, const InspectOptions& options) {
  try {
    std::error_code error;
    if (std::filesystem::is_regular_file(path, error)) return inspect_file(path, options);
    const auto folder = read_model_folder(path);
    if (!folder.ok()) return folder.error();
    Inspection out;
    out.path = path;
    out.pipeline_class = folder->pipeline_class;
    out.diffusers_version = folder->diffusers_version;
    Inspector inspector(path, options, out);
    out.files.push_back(inspector.file(path / "model_index.json"));
    if (folder->components.empty()) inspector.problem("model_index.json: names no components");
    for (const auto& [name, entry] : folder->components) inspector.component(name, entry);
    out.family = family_of(out);
    if (options.hashes) out.sha256 = hash_of_all(out);
    return out;
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const std::exception& exception) {
    return Error{ErrorCode::kIo, fmt::format("{}: cannot be inspected ({})", quote(path.string()),
                                             exception.what())};
  }
}

}  // namespace limner::engine::weights
