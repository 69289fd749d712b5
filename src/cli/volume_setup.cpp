#include "cli/volume_setup.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/atomic_file.h"
#include "base/file_hash.h"
#include "base/sha256.h"
#include "cli/engine_loader.h"
#include "cli/interrupt.h"
#include "cli/model_convert.h"
#include "cli/model_pull.h"
#include "engine/weights/checkpoint/folder_writer.h"
#include "platform/file_lock.h"
#include "platform/templates/templates.h"
#include "runpod/volume/manifest.h"
#include "runpod/volume/places.h"
#include "runpod/volume/upload.h"
#include "runpod/volume/weights_kind.h"

namespace limner::cli {
namespace {

namespace fs = std::filesystem;
using runpod::VolumeFile;
using runpod::VolumeManifest;
using runpod::WeightsKind;

constexpr const char* kJournal = ".limner-setup.json";

// "URL#sha256=HEX"
struct Reference {
  std::string what, sha256;
};

Reference parse_reference(const std::string& text) {
  const auto at = text.find("#sha256=");
  if (at == std::string::npos) return {text, ""};
  return {text.substr(0, at), text.substr(at + 8)};
}

// Throws Failure, for the command's one catch.
class Setup {
 public:
  Setup(const VolumeSetupOptions& options, const Console& console)
      : options_(options), console_(console), root_(options.volume) {}

  void run() {
    for (const char* folder : runpod::kVolumeFolders) fs::create_directories(root_ / folder);
    const auto lock = platform::FileLock::try_lock(root_ / runpod::kVolumeLock);
    if (!lock) {
      throw Failure(ErrorCode::kUnavailable,
                    fmt::format("another `limner volume` is at work on {}", root_.string()));
    }
    read_earlier();
    for (const std::string& model : options_.models) bring_model(model);
    for (const std::string& lora : options_.loras) bring_lora(lora);
    if (!options_.templates.empty()) build_templates();
    record();
  }

  void report() const {
    std::uint64_t bytes = 0;
    for (const auto& [path, file] : manifest_.files) bytes += file.bytes;
    if (console_.json()) {
      console_.result(nlohmann::json{
          {"volume", root_.string()},
          {"manifest", (root_ / runpod::kVolumeManifest).string()},
          {"files", manifest_.files.size()},
          {"bytes",
           bytes}}.dump());
      return;
    }
    console_.result(fmt::format("{}: {} file{}, {}, all read again and written down in {}",
                                root_.string(), manifest_.files.size(),
                                manifest_.files.size() == 1 ? "" : "s", human_bytes(bytes),
                                runpod::kVolumeManifest));
  }

 private:
  // ---- what earlier runs did

  void read_earlier() {
    auto before = runpod::read_manifest(root_);
    if (before.ok()) {
      before_ = std::move(*before);
    } else if (before.error().code != ErrorCode::kNotFound) {
      throw Failure(before.error().code,
                    before.error().message + "; remove it to have the folder taken as it is");
    }
    asked_ = before_.asked;
    const auto journal = runpod::read_text(root_ / kJournal);
    if (!journal.ok()) return;
    const auto begun = runpod::parse_manifest(*journal, kJournal);
    if (begun.ok()) asked_.insert(begun->asked.begin(), begun->asked.end());
  }

  // Whether this was asked for before, so that what lies there is the same. A URL may hold a key,
  // so it is known by its hash.
  bool begin(const std::string& key) {
    const bool begun = asked_.contains(key);
    asked_.emplace(key, "");
    save_journal();
    return begun;
  }

  void save_journal() const {
    VolumeManifest journal;
    journal.asked = asked_;
    write_atomically(root_ / kJournal, runpod::to_text(journal));
  }

  static std::string key_of(const std::string& role, const std::string& reference) {
    return role + ' ' + sha256_hex(std::as_bytes(std::span(reference))).substr(0, 16);
  }

  // ---- what is brought

  Pulled bring(const std::string& role, const std::string& text, const fs::path& folder) {
    const Reference reference = parse_reference(text);
    const std::string key = key_of(role, reference.what);
    PullRequest request;
    request.keep = begin(key);
    request.what = reference.what;
    request.sha256 = reference.sha256;
    request.output = folder;
    if (names_repository(reference.what).value_or_throw()) request.variant = options_.variant;
    fs::create_directories(folder);
    Pulled pulled = pull(request, console_).value_or_throw();
    for (const auto& file : pulled.files) {
      const std::string path = below(file.file);
      sources_[path] = pulled.source;
      if (!file.sha256.empty()) downloaded_[path] = file.sha256;
    }
    asked_[key] = below(pulled.path);
    return pulled;
  }

  // An adapter among the models would lie there unused, and the other way round.
  void require_kind(const Pulled& pulled, WeightsKind wrong, const char* advice) {
    if (fs::is_directory(pulled.path)) return;
    const auto kind = runpod::weights_kind(pulled.path);
    if (!kind.ok()) throw Failure(kind.error());
    if (*kind != wrong) return;
    fs::remove(pulled.path);
    throw Failure(ErrorCode::kInvalidArgument,
                  fmt::format("{} {}", pulled.path.filename().string(), advice));
  }

  void bring_model(const std::string& reference) {
    const bool single = !names_repository(parse_reference(reference).what).value_or_throw();
    const bool converted = options_.convert && single;
    const Pulled pulled =
        bring("model", reference, root_ / (converted ? runpod::kRawFolder : "models"));
    require_kind(pulled, WeightsKind::kAdapter, "is an adapter: give it with --lora");
    if (converted) convert_file(pulled);
    save_journal();
  }

  void convert_file(const Pulled& pulled) {
    const fs::path target = root_ / "models" / pulled.path.stem();
    if (!fs::exists(target / engine::weights::kManifestName)) {
      ConvertArguments asked;
      asked.input = pulled.path.string();
      asked.output = target.string();
      asked.write.dtype = engine::weights::DType::kF16;
      asked.write.variant = "fp16";
      convert(std::move(asked), console_).value_or_throw();
    }
    from_[below(target)] = "converted from " + pulled.source;
  }

  void bring_lora(const std::string& reference) {
    const Pulled pulled = bring("lora", reference, root_ / "loras");
    require_kind(pulled, WeightsKind::kCheckpoint, "is a model: give it with --model");
    save_journal();
  }

  void build_templates() {
    const auto templates = platform::read_templates(options_.templates).value_or_throw();
    TemplateBuildOptions build;
    build.file = options_.templates;
    build.out = root_ / "models";
    build.report = false;
    const auto* engine = load_engine().value_or_throw();
    if (engine->template_build(build, console_) != 0)
      throw Failure(ErrorCode::kInvalidModel, "not all templates could be built");
    for (const auto& [key, made] : templates.by_key) {
      from_["models/" + made.model_dir()] = "built from the template " + key;
      from_["models/" + made.checkpoint.diffusers_dir] = "converted for the template " + key;
    }
    const std::string text = runpod::read_text(options_.templates).value_or_throw();
    write_atomically(root_ / runpod::kTemplatesFile, text);
    from_[runpod::kTemplatesFile] = "";
  }

  // ---- what is written down

  std::string below(const fs::path& path) const {
    return path.lexically_relative(root_).generic_string();
  }

  // The entry of `places` that `path` is or lies below.
  template <typename Places>
  static auto place_of(const Places& places, const std::string& path) {
    return std::find_if(places.begin(), places.end(), [&](const auto& place) {
      return path == place.first || path.starts_with(place.first + '/');
    });
  }

  void record() {
    const InterruptGuard interrupts;
    const std::vector<std::string> files = runpod::volume_files(root_).value_or_throw();
    std::uint64_t total = 0;
    for (const std::string& path : files) total += fs::file_size(root_ / path);
    ProgressBar bar(console_, "verifying", static_cast<std::int64_t>(total),
                    ProgressBar::Unit::kBytes);
    for (const std::string& path : files) take_in(path, bar);
    bar.finish();
    find_lost();
    if (!problems_.empty()) {
      for (const std::string& problem : problems_) console_.note(problem);
      throw Failure(
          ErrorCode::kInvalidModel,
          fmt::format(
              "{} is not written: {}{}", runpod::kVolumeManifest, problems_.front(),
              problems_.size() == 1 ? "" : fmt::format(" (and {} more)", problems_.size() - 1)));
    }
    manifest_.written = runpod::utc_now();
    manifest_.asked = asked_;
    write_atomically(root_ / runpod::kVolumeManifest, runpod::to_text(manifest_));
    fs::remove(root_ / kJournal);
    sync_folder(root_);
  }

  void take_in(const std::string& path, ProgressBar& bar) {
    const fs::path file = root_ / path;
    if (file.extension() == ".safetensors") {
      const auto kind = runpod::weights_kind(file);
      if (!kind.ok()) return problems_.push_back(kind.error().message);
    }
    VolumeFile entry;
    entry.bytes = fs::file_size(file);
    const std::uint64_t before = read_;
    entry.sha256 = file_sha256(file, [&] {
                     if (InterruptGuard::requested())
                       throw Failure(ErrorCode::kCancelled, "interrupted; run it again to go on");
                     bar.update(static_cast<std::int64_t>(read_));
                     read_ = std::min(read_ + (std::uint64_t{1} << 20), before + entry.bytes);
                   }).value_or_throw();
    read_ = before + entry.bytes;
    describe(path, entry);
    manifest_.files.emplace(path, std::move(entry));
  }

  void describe(const std::string& path, VolumeFile& entry) {
    const auto before = before_.files.find(path);
    const bool same = before != before_.files.end() && before->second.sha256 == entry.sha256;
    const auto made = place_of(from_, path);
    const auto pulled = sources_.find(path);
    const auto downloaded = downloaded_.find(path);
    entry.source = made != from_.end()        ? made->second
                   : pulled != sources_.end() ? pulled->second
                   : same                     ? before->second.source
                                              : "";
    entry.when = same ? before->second.when : runpod::utc_now();
    if (downloaded != downloaded_.end()) {
      if (downloaded->second != entry.sha256)
        problems_.push_back(fmt::format("{}: was downloaded with other bytes than the disk has",
                                        (root_ / path).string()));
    } else if (before != before_.files.end() && !same && made == from_.end()) {
      changed(path, before->second);
    }
  }

  void changed(const std::string& path, const VolumeFile& before) {
    if (before.source.empty()) {
      console_.note(fmt::format("{}: has changed since the last time; taken as it is", path));
      return;
    }
    problems_.push_back(fmt::format("{}: is not what came from {}; remove {} and run this again",
                                    (root_ / path).string(), before.source, whole_of(path)));
  }

  // A model that has lost some of its files; one that was removed as a whole was removed on
  // purpose.
  void find_lost() {
    std::set<std::string> told;
    for (const auto& [path, entry] : before_.files) {
      const std::string whole = whole_of(path);
      if (manifest_.files.contains(path) || place_of(from_, path) != from_.end() ||
          fs::exists(root_ / path) || !fs::is_directory(whole) || !told.insert(whole).second) {
        continue;
      }
      problems_.push_back(
          fmt::format("{}: is gone; remove {} and run this again", (root_ / path).string(), whole));
    }
  }

  // DIR/models/NAME of a path below it.
  std::string whole_of(const std::string& path) const {
    const auto first = path.find('/');
    return (root_ / path.substr(0, first == std::string::npos ? first : path.find('/', first + 1)))
        .string();
  }

  const VolumeSetupOptions& options_;
  const Console& console_;
  const fs::path root_;
  VolumeManifest before_, manifest_;
  std::map<std::string, std::string> asked_;       // see VolumeManifest; "": begun
  std::map<std::string, std::string> sources_;     // of files, by path
  std::map<std::string, std::string> from_;        // of what was made in this run: a path or folder
  std::map<std::string, std::string> downloaded_;  // hashes of files that came in this run
  std::vector<std::string> problems_;
  std::uint64_t read_ = 0;
};

}  // namespace

int volume_setup(const VolumeSetupOptions& options, const Console& console) {
  try {
    Setup setup(options, console);
    setup.run();
    setup.report();
    return 0;
  } catch (const Failure& failure) {
    return console.fail(failure.error());
  } catch (const fs::filesystem_error& error) {
    return console.fail({ErrorCode::kIo, error.what()});
  }
}

}  // namespace limner::cli
