#include "worker/catalog_builder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/resource.h>

#include <algorithm>

#include "engine/lora/adapter_folders.h"
#include "engine/lora/inspect.h"
#include "engine/weights/model_hash.h"

namespace limner::worker {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingleFile = ".safetensors";
constexpr int kDeepest = 3;  // folders inside a model's folder
constexpr std::size_t kMostTriggerWords = 10;

std::string stamp_of_file(const fs::path& file) {
  std::error_code failed;
  const auto bytes = fs::file_size(file, failed);
  const auto time = failed ? fs::file_time_type() : fs::last_write_time(file, failed);
  return fmt::format("{}|{}|{}\n", file.string(), failed ? 0 : bytes,
                     time.time_since_epoch().count());
}

// Path, size and time of every file of a model: equal for models that are the same, as far as a
// look tells.
std::string stamp_of_model(const fs::path& model) {
  std::error_code failed;
  if (!fs::is_directory(model, failed)) return stamp_of_file(model);
  std::vector<fs::path> files;
  for (fs::recursive_directory_iterator entry(model, failed), end; !failed && entry != end;
       entry.increment(failed)) {
    if (entry.depth() >= kDeepest) entry.disable_recursion_pending();
    std::error_code ignored;
    if (entry->is_regular_file(ignored)) files.push_back(entry->path());
  }
  std::ranges::sort(files);
  std::string stamp;
  for (const fs::path& file : files) stamp += stamp_of_file(file);
  return stamp;
}

// CLIP's vocabulary for single files, where an installation has one beside its models.
fs::path tokenizer_in(const std::vector<fs::path>& folders) {
  std::error_code ignored;
  for (const fs::path& folder : folders) {
    if (fs::is_directory(folder / "clip-tokenizer", ignored)) return folder / "clip-tokenizer";
  }
  return {};
}

contract::AdapterCard card_of(const engine::lora::NamedAdapter& adapter) {
  contract::AdapterCard card;
  card.name = adapter.name;
  card.bytes = adapter.bytes;
  const auto found = engine::lora::inspect_adapter(adapter.file, /*hash=*/false);
  if (!found.ok()) {
    card.problem = found.error().message;
    return card;
  }
  std::vector<std::string> kinds;
  for (const auto& [kind, modules] : found->kinds) kinds.push_back(kind);
  card.kind = fmt::format("{}", fmt::join(kinds, ", "));
  card.family = found->family;
  if (!found->trigger.empty()) card.trigger_words.push_back(found->trigger);
  for (const auto& [tag, count] : found->tags) {
    if (card.trigger_words.size() >= kMostTriggerWords) break;
    if (tag == found->trigger) continue;
    card.trigger_words.push_back(tag);
  }
  return card;
}

}  // namespace

CatalogBuilder::CatalogBuilder(CatalogOptions options,
                               std::function<std::vector<std::string>()> loaded, Log& log)
    : options_(std::move(options)), loaded_(std::move(loaded)), log_(log) {
  refresh();
  hasher_ = std::jthread([this](std::stop_token stop) { hash(stop); });
  if (options_.look_every > std::chrono::milliseconds(0)) {
    looker_ = std::jthread([this](std::stop_token stop) { look(stop); });
  }
}

CatalogBuilder::~CatalogBuilder() = default;

std::shared_ptr<const contract::Catalog> CatalogBuilder::catalog() const {
  const std::lock_guard lock(mutex_);
  return catalog_;
}

std::optional<ModelPlace> CatalogBuilder::place(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  const auto found = models_.find(std::string(name));
  if (found == models_.end()) return std::nullopt;
  return found->second.place;
}

std::map<std::string, fs::path> CatalogBuilder::find_models() const {
  std::map<std::string, fs::path> models;
  for (const fs::path& folder : options_.model_folders) {
    std::error_code failed;
    for (fs::directory_iterator entry(folder, failed), end; !failed && entry != end;
         entry.increment(failed)) {
      std::error_code ignored;
      const fs::path& path = entry->path();
      const bool file = path.extension() == kSingleFile && fs::is_regular_file(path, ignored);
      if (!file && !fs::exists(path / "model_index.json", ignored)) continue;
      models.emplace((file ? path.stem() : path.filename()).string(), path);
    }
  }
  return models;
}

CatalogBuilder::Model CatalogBuilder::read_model(const std::string& name, const fs::path& path,
                                                 std::string stamp) const {
  Model model;
  model.place.name = model.card.name = name;
  model.place.composition = options_.loading;
  model.place.composition.model = path;
  if (model.place.composition.tokenizer.empty())
    model.place.composition.tokenizer = tokenizer_in(options_.model_folders);
  model.place.version = std::move(stamp);
  const auto described = engine::describe(model.place.composition);
  if (!described.ok()) {
    model.card.problem = model.place.problem = described.error().message;
    model.hash_tried = true;
    return model;
  }
  model.card.family = described->info.family;
  model.card.pipeline = described->info.pipeline;
  model.card.bytes = model.place.weight_bytes = described->weight_bytes;
  model.card.limits = described->limits;
  contract::Limits& limits = model.card.limits;
  limits.largest_side = std::min(limits.largest_side, options_.largest_side);
  limits.most_steps = std::min(limits.most_steps, options_.most_steps);
  limits.most_images = std::min(limits.most_images, options_.most_images);
  // What is taken where a request is silent must be allowed, too.
  const std::int64_t largest = limits.largest_side / limits.multiple * limits.multiple;
  limits.default_width = std::min(limits.default_width, largest);
  limits.default_height = std::min(limits.default_height, largest);
  limits.default_steps = std::min(limits.default_steps, limits.most_steps);
  return model;
}

std::map<std::string, CatalogBuilder::Adapter> CatalogBuilder::read_adapters() const {
  std::map<std::string, Adapter> known;
  {
    const std::lock_guard lock(mutex_);
    known = adapters_;
  }
  std::map<std::string, Adapter> found;
  for (const auto& named : engine::lora::AdapterFolders(options_.adapter_folders).list()) {
    std::string stamp = stamp_of_file(named.file);
    const auto same = known.find(named.name);
    if (same != known.end() && same->second.stamp == stamp) {
      found.emplace(named.name, same->second);
    } else {
      found.emplace(named.name, Adapter{std::move(stamp), card_of(named)});
    }
  }
  return found;
}

void CatalogBuilder::refresh() {
  const std::lock_guard one(looking_);
  std::map<std::string, Model> known;
  {
    const std::lock_guard lock(mutex_);
    known = models_;
  }
  std::map<std::string, Model> found;
  for (const auto& [name, path] : find_models()) {
    std::string stamp = stamp_of_model(path);
    const auto same = known.find(name);
    if (same != known.end() && same->second.place.version == stamp) {
      found.emplace(name, same->second);
      continue;
    }
    Model model = read_model(name, path, std::move(stamp));
    if (model.card.problem.empty()) {
      log_.info("a model was found", {{"model", name}, {"family", model.card.family}});
    } else {
      log_.warning("a model cannot be used", {{"model", name}, {"error", model.card.problem}});
    }
    found.emplace(name, std::move(model));
  }
  std::map<std::string, Adapter> adapters = read_adapters();
  const std::lock_guard lock(mutex_);
  for (auto& [name, model] : found) {
    // The hash may have come meanwhile.
    const auto now = models_.find(name);
    if (now != models_.end() && now->second.place.version == model.place.version)
      model = now->second;
  }
  models_ = std::move(found);
  adapters_ = std::move(adapters);
  publish();
}

void CatalogBuilder::publish() {
  auto made = std::make_shared<contract::Catalog>();
  const std::vector<std::string> loaded = loaded_();
  made->most_adapters = options_.most_adapters;
  made->default_model = options_.default_model;
  for (auto& [name, model] : models_) {
    contract::ModelCard card = model.card;
    card.loaded = std::ranges::count(loaded, name) > 0;
    if (made->default_model.empty() && card.problem.empty()) made->default_model = name;
    made->models.push_back(std::move(card));
  }
  for (const auto& [name, adapter] : adapters_) made->adapters.push_back(adapter.card);
  catalog_ = std::move(made);
  changed_.notify_all();
}

void CatalogBuilder::look(std::stop_token stop) {
  while (!stop.stop_requested()) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, stop, options_.look_every, [] { return false; });
    }
    if (!stop.stop_requested()) refresh();
  }
}

bool CatalogBuilder::hash_one(std::stop_token stop) {
  std::optional<ModelPlace> place;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, model] : models_) {
      if (!model.hash_tried) place = model.place;
    }
  }
  if (!place) return false;
  const auto hash = engine::weights::model_sha256(place->composition.model, options_.hashes, [&] {
    if (stop.stop_requested()) throw Failure(ErrorCode::kCancelled, "stopped");
  });
  const std::lock_guard lock(mutex_);
  const auto model = models_.find(place->name);
  if (model == models_.end() || model->second.place.version != place->version) return true;
  model->second.hash_tried = true;
  model->second.card.hash = model->second.place.hash = hash.ok() ? *hash : "";
  publish();
  return true;
}

void CatalogBuilder::hash(std::stop_token stop) {
  // Of this thread alone: loading and drawing go first where processors are few.
  ::setpriority(PRIO_PROCESS, 0, 10);
  while (!stop.stop_requested()) {
    if (hash_one(stop)) continue;
    std::unique_lock lock(mutex_);
    changed_.wait(lock, stop, [&] {
      return std::ranges::any_of(models_, [](const auto& one) { return !one.second.hash_tried; });
    });
  }
}

void CatalogBuilder::wait_for_hashes() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] {
    return std::ranges::all_of(models_, [](const auto& one) { return one.second.hash_tried; });
  });
}

}  // namespace limner::worker
