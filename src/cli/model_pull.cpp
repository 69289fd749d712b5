#include "cli/model_pull.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/file_hash.h"
#include "cli/adapter_paths.h"
#include "cli/civitai.h"
#include "cli/download_settings.h"
#include "cli/hub_repository.h"
#include "cli/model_commands.h"
#include "platform/disk_space.h"
#include "platform/file_lock.h"

namespace limner::cli {
namespace {

namespace fs = std::filesystem;
namespace http = platform::http;

// Configs and vocabularies: none comes near.
constexpr std::uint64_t kMaxSmallFile = std::uint64_t{64} << 20;
constexpr const char* kLock = ".lock";

// A hub's page of a repository: /owner/name, also /owner/name/tree/REVISION.
std::optional<HubName> repository_of(const http::Url& url, const http::Url& hub) {
  if (url.authority() != hub.authority()) return std::nullopt;
  std::string path = url.target.substr(1, url.target.find('?') - 1);
  if (path.ends_with('/')) path.pop_back();
  if (const auto tree = path.find("/tree/"); tree != std::string::npos) path.replace(tree, 6, "@");
  const std::string name = path.substr(0, path.find('@'));
  if (std::count(name.begin(), name.end(), '/') != 1) return std::nullopt;
  return parse_hub_name(path).value_or_throw();
}

// Throws Failure, for the command's one catch.
class Pull {
 public:
  Pull(const PullRequest& options, const Console& console)
      : options_(options),
        console_(console),
        rules_(network_rules().value_or_throw()),
        hub_(hub_endpoint().value_or_throw()),
        civitai_(civitai_endpoint().value_or_throw()) {
    output_ = options.output.empty() ? default_folder() : options.output;
  }

  Pulled run() {
    if (!is_url(options_.what)) return repository(parse_hub_name(options_.what).value_or_throw());
    const http::Url url = http::parse_url(options_.what).value_or_throw();
    if (const auto name = repository_of(url, hub_)) return repository(*name);
    if (const auto version = civitai_version(url, civitai_)) {
      return file(find_civitai_file(url, *version, civitai_, rules_).value_or_throw());
    }
    const std::string path = url.target.substr(0, url.target.find('?'));
    return file({options_.what, safe_file_name(path.substr(path.rfind('/') + 1)), ""});
  }

 private:
  static fs::path default_folder() {
    const char* listed = std::getenv("LIMNER_MODELS");
    const std::string first =
        listed == nullptr ? "" : std::string(listed).substr(0, std::string_view(listed).find(':'));
    return first.empty() ? "models" : first;
  }

  Pulled file(const RemoteFile& remote) {
    if (!options_.variant.empty()) {
      throw Failure(ErrorCode::kInvalidArgument, "--variant is for repositories; this is one file");
    }
    const std::string sha256 = options_.sha256.empty() ? remote.sha256 : options_.sha256;
    fs::create_directories(output_);
    http::DownloadRequest request{
        .url = remote.url, .file = output_ / remote.name, .sha256 = sha256};
    request.content = http::Content::kSafetensors;
    request.network = rules_;
    if (options_.keep && sha256.empty() && fs::exists(request.file))
      return there_already(request.file, http::parse_url(remote.url).value_or_throw().shown());
    if (fs::exists(request.file) && !is_same(request.file, sha256)) {
      throw Failure(
          ErrorCode::kInvalidArgument,
          fmt::format("{} is there already, with other content perhaps; remove it, or give "
                      "--output",
                      request.file.string()));
    }
    Pulled pulled{request.file, {}, http::parse_url(remote.url).value_or_throw().shown()};
    pulled.files.push_back(download_shown(request, remote.name, console_).value_or_throw());
    return pulled;
  }

  // What lies there from an earlier call: its hashes are not known.
  static Pulled there_already(const fs::path& path, const std::string& source) {
    Pulled pulled{path, {}, source};
    const auto add = [&](const fs::path& file) {
      pulled.files.push_back({file, fs::file_size(file), "", ""});
    };
    if (!fs::is_directory(path)) {
      add(path);
      return pulled;
    }
    for (const auto& entry : fs::recursive_directory_iterator(path)) {
      if (entry.is_regular_file()) add(entry.path());
    }
    return pulled;
  }

  static bool is_same(const fs::path& file, std::string sha256) {
    for (char& c : sha256) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return !sha256.empty() && fs::is_regular_file(file) &&
           file_sha256(file).value_or_throw() == sha256;
  }

  // All files in a folder beside the final one, which then takes its name: a model is never half
  // there, and what has come stays for the next time.
  Pulled repository(const HubName& name) {
    if (!options_.sha256.empty()) {
      throw Failure(ErrorCode::kInvalidArgument,
                    "--sha256 is for one file; a repository says the hashes of its own");
    }
    const std::string short_name = name.repository.substr(name.repository.find('/') + 1);
    const fs::path folder = output_ / short_name;
    if (options_.keep && fs::exists(folder)) return there_already(folder, hub_page(name));
    if (fs::exists(folder)) {
      throw Failure(
          ErrorCode::kInvalidArgument,
          fmt::format("{} is there already; remove it, or give --output", folder.string()));
    }
    const HubRepository repository =
        parse_hub_repository(fetch(hub_api_url(hub_, name))).value_or_throw();
    const std::vector<HubFile> files = files_of(name, repository);

    const fs::path coming = output_ / ("." + short_name + ".coming");
    fs::create_directories(coming);
    const auto lock = platform::FileLock::try_lock(coming / kLock);
    if (!lock) {
      throw Failure(ErrorCode::kUnavailable, fmt::format("{} is being pulled already", short_name));
    }
    remove_others(coming, files);
    require_space(coming, files);
    Pulled pulled{folder, {}, fmt::format("{}@{}", hub_page(name), repository.commit)};
    for (const HubFile& file : files) {
      fs::create_directories((coming / file.path).parent_path());
      auto done = download_shown(hub_request(name, repository, file, coming), file.path, console_)
                      .value_or_throw();
      done.file = folder / file.path;
      pulled.files.push_back(std::move(done));
    }
    fs::remove(coming / kLock);
    fs::rename(coming, folder);
    sync_folder(output_);
    return pulled;
  }

  std::string hub_page(const HubName& name) const {
    return fmt::format("https://{}/{}", hub_.authority(), name.repository);
  }

  std::string fetch(const std::string& url) const {
    http::FetchRequest request;
    request.url = url;
    request.network = rules_;
    return http::fetch(request).value_or_throw();
  }

  std::vector<HubFile> files_of(const HubName& name, const HubRepository& repository) const {
    const bool model =
        std::any_of(repository.files.begin(), repository.files.end(),
                    [](const HubFile& file) { return file.path == "model_index.json"; });
    if (!model) {
      throw Failure(ErrorCode::kNotFound,
                    fmt::format("{} has no model_index.json, so it is no diffusers model; for one "
                                "file of it give {}",
                                name.repository,
                                hub_file_url(hub_, name, name.revision, "FILE.safetensors")));
    }
    const std::string index =
        fetch(hub_file_url(hub_, name, repository.commit, "model_index.json"));
    return choose_hub_files(repository, index, options_.variant).value_or_throw();
  }

  http::DownloadRequest hub_request(const HubName& name, const HubRepository& repository,
                                    const HubFile& file, const fs::path& folder) const {
    http::DownloadRequest request{.url = hub_file_url(hub_, name, repository.commit, file.path),
                                  .file = folder / file.path,
                                  .sha256 = file.sha256};
    const bool weights = file.path.ends_with(".safetensors");
    if (weights) request.content = http::Content::kSafetensors;
    if (!weights) request.max_bytes = kMaxSmallFile;
    request.network = rules_;
    return request;
  }

  // An earlier call may have been for another revision or variant.
  static void remove_others(const fs::path& folder, const std::vector<HubFile>& files) {
    std::vector<fs::path> others;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      if (entry.is_directory()) continue;
      const std::string path = entry.path().lexically_relative(folder).string();
      const bool wanted = std::any_of(files.begin(), files.end(), [&](const HubFile& file) {
        return path == file.path || path == file.path + ".part" || path == file.path + ".part.json";
      });
      if (!wanted && path != kLock) others.push_back(entry.path());
    }
    for (const fs::path& other : others) fs::remove(other);
  }

  // What is there of it already needs no further room.
  static void require_space(const fs::path& folder, const std::vector<HubFile>& files) {
    std::uint64_t wanted = 0;
    for (const HubFile& file : files) {
      std::error_code ignored;
      if (!fs::exists(folder / file.path, ignored)) wanted += file.bytes;
    }
    platform::require_space(folder, wanted);
  }

  const PullRequest& options_;
  const Console& console_;
  http::NetworkRules rules_;
  http::Url hub_, civitai_;
  fs::path output_;
};

int run_pull(const PullRequest& options, const Console& console) {
  const auto pulled = pull(options, console);
  if (!pulled.ok()) return console.fail(pulled.error());
  std::uint64_t bytes = 0;
  nlohmann::json files = nlohmann::json::array();
  for (const http::Downloaded& file : pulled->files) {
    bytes += file.bytes;
    files.push_back({{"path", file.file.string()}, {"bytes", file.bytes}, {"sha256", file.sha256}});
  }
  if (console.json()) {
    console.result(
        nlohmann::json{{"path", pulled->path.string()}, {"bytes", bytes}, {"files", files}}.dump());
  } else {
    console.result(fmt::format("{}  {}", pulled->path.string(), human_bytes(bytes)));
  }
  return 0;
}

}  // namespace

Result<bool> names_repository(const std::string& what) {
  try {
    if (!is_url(what)) return true;
    const http::Url url = http::parse_url(what).value_or_throw();
    return repository_of(url, hub_endpoint().value_or_throw()).has_value();
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<Pulled> pull(const PullRequest& request, const Console& console) {
  try {
    return Pull(request, console).run();
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const fs::filesystem_error& error) {
    return Error{ErrorCode::kIo, error.what()};
  }
}

void add_pull(CLI::App& parent, Context& context) {
  CLI::App* command = parent.add_subcommand("pull", "Download a model");
  auto options = std::make_shared<PullRequest>();
  command
      ->add_option("model", options->what,
                   "A URL of a safetensors file, a Civitai link to a model version, or a hub "
                   "repository, owner/name[@revision], in the diffusers layout")
      ->required();
  command->add_option("--output", options->output,
                      "Folder to put it in; default: the first one of LIMNER_MODELS, or models/");
  command->add_option("--sha256", options->sha256, "What the file's SHA-256 must be");
  command->add_option("--variant", options->variant,
                      "Of a repository: take NAME.VARIANT.safetensors files, e.g. fp16");
  add_console_options(*command, context);
  command->footer(
      "HF_TOKEN and CIVITAI_API_KEY are sent to the hub and to Civitai alone. Called again, it "
      "goes "
      "on where it stopped.\n\nExample:\n  limner model pull owner/name --variant fp16");
  command->callback(
      [options, &context] { context.exit_code = run_pull(*options, context.console()); });
}

}  // namespace limner::cli
