#include "cli/engine_module/template_build.h"

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/file_hash.h"
#include "cli/download_settings.h"
#include "cli/engine_module/merge.h"
#include "cli/model_paths.h"
#include "engine/weights/checkpoint/folder_writer.h"
#include "engine/weights/checkpoint/verify.h"
#include "platform/http/download.h"
#include "platform/templates/model_places.h"
#include "platform/templates/templates.h"

namespace limner::cli {
namespace {

namespace fs = std::filesystem;
namespace weights = engine::weights;
using nlohmann::json;
using platform::Template;
using platform::TemplateCheckpoint;
using platform::TemplateLora;

enum class State { kWaiting, kUnchanged, kCopied, kBuilt, kFailed };

const char* name(State state) {
  switch (state) {
    case State::kUnchanged:
      return "unchanged";
    case State::kCopied:
      return "copied";
    case State::kBuilt:
      return "built";
    case State::kFailed:
      return "failed";
    case State::kWaiting:
      break;
  }
  return "waiting";
}

// A model to build: a checkpoint as it is, or a template's with its adapters merged in.
struct Row {
  std::string dir;
  std::string key;  // hash of everything it is made from
  const TemplateCheckpoint* checkpoint = nullptr;
  const Template* merged = nullptr;  // null for a checkpoint as it is
  State state = State::kWaiting;
  fs::path place;
  double seconds = 0;
  std::string problem;
};

// A file to have in the downloads folder.
struct Wanted {
  std::string url, filename, sha256;
  std::string problem;  // "" once it is there
};

class Build {
 public:
  Build(const TemplateBuildOptions& options, const Console& console)
      : options_(options), console_(console), downloads_(options.out / "downloads") {}

  void run() {
    templates_ = platform::read_templates(options_.file).value_or_throw();
    std::error_code error;
    fs::create_directories(downloads_, error);
    if (error)
      throw Failure(ErrorCode::kIo,
                    fmt::format("{}: cannot be made ({})", downloads_.string(), error.message()));
    plan();
    each(rows_.size(), [&](std::size_t i) { timed(rows_[i], [&] { find_built(rows_[i]); }); });
    fetch_all();
    // A merged model is made from its checkpoint's folder, so those come first.
    each(checkpoints_, [&](std::size_t i) { timed(rows_[i], [&] { build(rows_[i]); }); });
    each(rows_.size() - checkpoints_, [&](std::size_t i) {
      timed(rows_[checkpoints_ + i], [&] { build(rows_[checkpoints_ + i]); });
    });
  }

  int report() const {
    int failed = 0;
    for (const Row& row : rows_) failed += row.state == State::kFailed ? 1 : 0;
    if (!options_.report) return failed == 0 ? 0 : 1;
    if (console_.json()) {
      json list = json::array();
      for (const Row& row : rows_) {
        list.push_back({{"model", row.dir},
                        {"template", row.merged ? json(row.merged->key) : json(nullptr)},
                        {"state", name(row.state)},
                        {"seconds", row.seconds},
                        {"path", row.place.string()},
                        {"problem", row.problem.empty() ? json(nullptr) : json(row.problem)}});
      }
      console_.result(json{{"models", list}}.dump(-1, ' ', false, json::error_handler_t::replace));
      return failed == 0 ? 0 : 1;
    }
    console_.result(
        fmt::format("{:<32}{:<12}{:<11}{:>10}  {}", "model", "kind", "state", "time", "place"));
    for (const Row& row : rows_) {
      console_.result(fmt::format("{:<32}{:<12}{:<11}{:>10}  {}", row.dir,
                                  row.merged ? "merged" : "checkpoint", name(row.state),
                                  human_duration(row.seconds),
                                  row.problem.empty() ? row.place.string() : row.problem));
    }
    return failed == 0 ? 0 : 1;
  }

 private:
  void plan() {
    unique_ = templates_.unique_checkpoints();
    for (const TemplateCheckpoint& checkpoint : unique_) {
      Row row;
      row.dir = checkpoint.diffusers_dir;
      row.key = hash(description(checkpoint));
      row.checkpoint = &checkpoint;
      rows_.push_back(std::move(row));
    }
    checkpoints_ = rows_.size();
    for (const auto& [key, made] : templates_.by_key) {
      if (made.loras.empty()) continue;
      Row row;
      row.dir = made.model_dir();
      row.checkpoint = &made.checkpoint;
      row.merged = &made;
      json all = {{"checkpoint", description(made.checkpoint)}, {"loras", json::array()}};
      for (const TemplateLora& lora : made.loras) {
        all["loras"].push_back({source(lora.url, lora.filename, lora.sha256), lora.scale});
      }
      row.key = hash(all);
      rows_.push_back(std::move(row));
    }
  }

  // What tells one content of a file from another: its hash, else where it comes from, else (for a
  // file brought by other means) what lies there now.
  json source(const std::string& url, const std::string& filename, const std::string& sha256) {
    if (!sha256.empty()) return {filename, sha256};
    if (!url.empty()) return {filename, url};
    const auto lies_there = file_sha256(downloads_ / filename);
    return {filename, lies_there.ok() ? *lies_there : ""};
  }

  json description(const TemplateCheckpoint& checkpoint) {
    return {{"file", source(checkpoint.url, checkpoint.filename, checkpoint.sha256)},
            {"prediction", checkpoint.prediction},
            {"dtype", options_.dtype ? json(weights::name(*options_.dtype)) : json(nullptr)},
            {"variant", options_.variant}};
  }

  static std::string hash(const json& what) {
    const std::string text = what.dump();
    return sha256_hex(std::as_bytes(std::span(text)));
  }

  void find_built(Row& row) {
    const auto found = platform::place_model({.dir = row.dir,
                                              .volume = options_.volume,
                                              .images = {options_.out},
                                              .is_right = [&](const fs::path& folder) {
                                                return weights::build_key_of(folder) == row.key;
                                              }});
    if (!found.ok()) {
      if (found.error().code != ErrorCode::kNotFound) throw Failure(found.error());
      return;
    }
    row.place = found->folder;
    row.state = found->copied ? State::kCopied : State::kUnchanged;
    say(found->said);
  }

  // Every file that a model still to be built wants, once each.
  void fetch_all() {
    std::set<std::string> seen;
    const auto want = [&](const std::string& url, const std::string& file, const std::string& sha) {
      if (seen.insert(file).second) wanted_.push_back({url, file, sha, ""});
    };
    for (const Row& row : rows_) {
      if (row.state != State::kWaiting) continue;
      if (!row.merged) {
        want(row.checkpoint->url, row.checkpoint->filename, row.checkpoint->sha256);
        continue;
      }
      for (const TemplateLora& lora : row.merged->loras) want(lora.url, lora.filename, lora.sha256);
    }
    each(wanted_.size(), [&](std::size_t i) { wanted_[i].problem = fetch(wanted_[i]); });
  }

  // "" or what went wrong. The downloader itself tries again, with growing waits.
  std::string fetch(const Wanted& wanted) {
    const fs::path file = downloads_ / wanted.filename;
    const fs::path note = file.string() + ".source";
    std::error_code ignored;
    const bool there = fs::is_regular_file(file, ignored);
    if (wanted.url.empty()) {
      return there ? ""
                   : fmt::format("{}: is not there and has no url to get it from", file.string());
    }
    std::string from;
    std::getline(std::ifstream(note), from);
    if (there && from == wanted.url && wanted.sha256.empty()) return "";
    const auto rules = network_rules();
    if (!rules.ok()) return rules.error().message;
    say(fmt::format("{}: downloading", wanted.filename));
    const auto got = platform::http::download({.url = wanted.url,
                                               .file = file,
                                               .sha256 = wanted.sha256,
                                               .content = platform::http::Content::kSafetensors,
                                               .network = *rules});
    if (!got.ok()) return fmt::format("{}: {}", wanted.filename, got.error().message);
    std::ofstream(note) << wanted.url << '\n';
    return "";
  }

  void require_file(const std::string& filename) const {
    for (const Wanted& wanted : wanted_) {
      if (wanted.filename == filename && !wanted.problem.empty())
        throw Failure(ErrorCode::kUnavailable, wanted.problem);
    }
  }

  void build(Row& row) {
    if (row.state != State::kWaiting) return;
    const fs::path target = options_.out / row.dir;
    const fs::path fresh = target.string() + ".new";
    std::error_code ignored;
    fs::remove_all(fresh, ignored);
    weights::WriteOptions write = {.output = fresh,
                                   .dtype = options_.dtype,
                                   .variant = options_.variant,
                                   .build_key = row.key};
    say(fmt::format("{}: {}", row.dir, row.merged ? "merging" : "converting"));
    row.merged ? make_merged(row, write) : make_checkpoint(row, write);
    const weights::Verification checked = weights::verify(fresh).value_or_throw();
    if (!checked.problems.empty()) {
      fs::remove_all(fresh, ignored);
      throw Failure(ErrorCode::kInvalidModel, checked.problems.front());
    }
    put_in_place(fresh, target);
    row.place = target;
    row.state = State::kBuilt;
    if (options_.volume.empty()) return;
    const auto placed = platform::place_model({.dir = row.dir,
                                               .volume = options_.volume,
                                               .images = {options_.out},
                                               .is_right = [&](const fs::path& folder) {
                                                 return weights::build_key_of(folder) == row.key;
                                               }});
    if (!placed.ok()) throw Failure(placed.error());
    row.place = placed->folder;
    say(placed->said);
  }

  void make_checkpoint(const Row& row, weights::WriteOptions& write) {
    require_file(row.checkpoint->filename);
    const fs::path file = downloads_ / row.checkpoint->filename;
    const auto model = weights::read_model(
        file, {.tokenizer = resolve_tokenizer(options_.tokenizer, model_folders()),
               .prediction = row.checkpoint->prediction});
    if (!model.ok()) throw Failure(model.error());
    write.inputs = {{.role = "model", .path = file, .scale = 1.0}};
    write_folder(*model, write).value_or_throw();
  }

  void make_merged(const Row& row, const weights::WriteOptions& write) {
    const Row& base = *std::find_if(rows_.begin(), rows_.end(), [&](const Row& other) {
      return !other.merged && other.dir == row.checkpoint->diffusers_dir;
    });
    if (base.place.empty())
      throw Failure(ErrorCode::kUnavailable, fmt::format("its checkpoint {} failed", base.dir));
    std::vector<AdapterToMerge> adapters;
    for (const TemplateLora& lora : row.merged->loras) {
      require_file(lora.filename);
      adapters.push_back(
          {downloads_ / lora.filename, engine::lora::AdapterScales::all(lora.scale)});
    }
    const auto model = weights::read_model(base.place);
    if (!model.ok()) throw Failure(model.error());
    merge_adapters(*model, adapters, false, write).value_or_throw();
  }

  static void put_in_place(const fs::path& fresh, const fs::path& target) {
    const fs::path old = target.string() + ".old";
    std::error_code error;
    fs::remove_all(old, error);
    if (fs::exists(target, error)) fs::rename(target, old, error);
    if (!error) fs::rename(fresh, target, error);
    if (error)
      throw Failure(ErrorCode::kIo, fmt::format("{}: cannot be put in place ({})", target.string(),
                                                error.message()));
    fs::remove_all(old, error);
  }

  // Runs `work` for a row; what goes wrong is the row's problem and nobody else's.
  void timed(Row& row, const std::function<void()>& work) {
    if (row.state == State::kFailed) return;
    const auto begin = std::chrono::steady_clock::now();
    try {
      work();
    } catch (const std::exception& exception) {
      row.state = State::kFailed;
      row.problem = exception.what();
      say(fmt::format("{}: failed: {}", row.dir, exception.what()));
    }
    row.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  // work(0) to work(count - 1), `jobs` at once; it must not throw.
  void each(std::size_t count, const std::function<void(std::size_t)>& work) const {
    std::atomic<std::size_t> next = 0;
    const auto loop = [&] {
      for (std::size_t i = next++; i < count; i = next++) work(i);
    };
    std::vector<std::jthread> threads;
    for (int i = 1; i < options_.jobs; ++i) threads.emplace_back(loop);
    loop();
  }

  void say(const std::string& line) {
    const std::lock_guard lock(speaking_);
    console_.note(line);
  }

  const TemplateBuildOptions& options_;
  const Console& console_;
  const fs::path downloads_;
  platform::Templates templates_;
  std::vector<TemplateCheckpoint> unique_;
  std::vector<Row> rows_;        // checkpoints first; a row is touched by one thread at a time
  std::size_t checkpoints_ = 0;  // rows that are checkpoints
  std::vector<Wanted> wanted_;
  std::mutex speaking_;
};

}  // namespace

int template_build(const TemplateBuildOptions& options, const Console& console) {
  Build build(options, console);
  try {
    build.run();
  } catch (const Failure& failure) {
    return console.fail(failure.error());
  }
  return build.report();
}

}  // namespace limner::cli
