#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/weights/file_kind.h"
#include "engine/weights/inspect.h"
#include "runpod/volume/check.h"
#include "runpod/volume/places.h"
#include "runpod/volume/weights_kind.h"

namespace limner::runpod {
namespace {

namespace fs = std::filesystem;
namespace weights = engine::weights;
using Kind = Finding::Kind;

constexpr const char* kReadsHere = "a worker looks for {} in {}/ itself and would not find this";

// Folders of other programs: worker-comfyui's below models/, the web UIs' at the top.
struct ForeignFolder {
  std::string_view name;
  const char* belongs;  // the folder of ours; nullptr: nothing here reads such files alone
};
constexpr std::array<ForeignFolder, 16> kForeign = {{{"checkpoints", "models"},
                                                     {"Stable-diffusion", "models"},
                                                     {"diffusers", "models"},
                                                     {"loras", "loras"},
                                                     {"Lora", "loras"},
                                                     {"lora", "loras"},
                                                     {"embeddings", "embeddings"},
                                                     {"controlnet", "controlnets"},
                                                     {"ControlNet", "controlnets"},
                                                     {"vae", nullptr},
                                                     {"clip", nullptr},
                                                     {"clip_vision", nullptr},
                                                     {"text_encoders", nullptr},
                                                     {"diffusion_models", nullptr},
                                                     {"unet", nullptr},
                                                     {"upscale_models", nullptr}}};

const ForeignFolder* foreign(const std::string& name) {
  const auto found = std::find_if(kForeign.begin(), kForeign.end(),
                                  [&](const ForeignFolder& each) { return each.name == name; });
  return found == kForeign.end() ? nullptr : &*found;
}

const char* folder_for(WeightsKind kind) {
  return kind == WeightsKind::kAdapter     ? "loras"
         : kind == WeightsKind::kEmbedding ? "embeddings"
                                           : "models";
}

const char* called(WeightsKind kind) {
  return kind == WeightsKind::kAdapter     ? "an adapter"
         : kind == WeightsKind::kEmbedding ? "a textual inversion"
                                           : "a model";
}

bool is_safetensors(const fs::path& path) {
  return path.extension() == ".safetensors";
}

std::size_t count_weights(const fs::path& folder) {
  std::size_t count = 0;
  std::error_code error;
  fs::recursive_directory_iterator entry(folder, error);
  for (const fs::recursive_directory_iterator end; !error && entry != end; entry.increment(error)) {
    count += is_safetensors(entry->path()) || weights::has_pickle_extension(entry->path()) ? 1 : 0;
  }
  return count;
}

class Places {
 public:
  Places(const CheckRequest& request, const VolumeManifest& manifest, Findings& out)
      : volume_(request.volume), manifest_(manifest), out_(out) {}

  void run() {
    each(volume_, [&](const fs::directory_entry& entry) { top(entry); });
    each(volume_ / "models", [&](const fs::directory_entry& entry) { in_models(entry); });
    for (const char* folder : {"loras", "embeddings", "controlnets"})
      each(volume_ / folder, [&](const fs::directory_entry& entry) { below(folder, entry); });
  }

 private:
  std::string path_of(const fs::path& path) const {
    return path.lexically_relative(volume_).generic_string();
  }

  // What is in `folder` by name; whatever has been named already is left out.
  template <typename Look>
  void each(const fs::path& folder, const Look& look) {
    std::error_code error;
    std::vector<fs::directory_entry> entries;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
      entries.push_back(*entry);
    }
    if (error && error != std::errc::no_such_file_or_directory) {
      out_.problem({Kind::kUnreadable, path_of(folder),
                    fmt::format("cannot be read ({})", error.message()),
                    "Run as the user who owns it, or open it with `chmod -R a+rX`."});
    }
    std::sort(entries.begin(), entries.end());
    for (const auto& entry : entries) {
      if (!out_.named.contains(path_of(entry.path()))) look(entry);
    }
  }

  // Leftovers and dangling links, which are the same everywhere; true when that is what it is.
  bool is_debris(const fs::directory_entry& entry) {
    const std::string path = path_of(entry.path());
    std::error_code ignored;
    if (is_leftover(entry.path())) {
      out_.problem({Kind::kHalfWritten, path,
                    "was left by a download, conversion or copy that did not end",
                    "Let `limner volume setup` go on with it, or remove it."});
      return true;
    }
    if (entry.is_symlink(ignored) && !entry.exists(ignored)) {
      out_.problem({Kind::kMissing, path,
                    fmt::format("is a link to {}, which is not there",
                                fs::read_symlink(entry.path(), ignored).string()),
                    "Put the file itself on the volume."});
      return true;
    }
    return false;
  }

  void top(const fs::directory_entry& entry) {
    const std::string name = entry.path().filename().string();
    if (name == ".limner-setup.json") {
      out_.problem({Kind::kHalfWritten, name, "says that set-up was begun here and did not end",
                    "Run `limner volume setup` again: it goes on where it was."});
    } else if (name == "huggingface-cache") {
      hub_cache(entry.path() / "hub");
    } else if (name.starts_with('.') || std::find(kVolumeFolders.begin(), kVolumeFolders.end(),
                                                  name) != kVolumeFolders.end()) {
      return;
    } else if (const ForeignFolder* folder = foreign(name); folder && entry.is_directory()) {
      other_layout(entry.path(), *folder);
    } else if (entry.is_directory() && fs::exists(entry.path() / "model_index.json")) {
      misplaced(name, "a model", "models");
    } else if (is_safetensors(entry.path()) && !is_debris(entry)) {
      const auto kind = weights_kind(entry.path());
      if (!kind.ok()) return broken(name, kind.error());
      misplaced(name, called(*kind), folder_for(*kind));
    }
  }

  // What the platform caches for an endpoint that names a model.
  void hub_cache(const fs::path& hub) {
    each(hub, [&](const fs::directory_entry& entry) {
      const std::string name = entry.path().filename().string();
      if (!name.starts_with("models--")) return;
      const auto dashes = name.find("--", 8);
      const std::string repository =
          dashes == std::string::npos
              ? name.substr(8)
              : fmt::format("{}/{}", name.substr(8, dashes - 8), name.substr(dashes + 2));
      out_.note({Kind::kUnused, path_of(entry.path()),
                 fmt::format("is the hub's cache of {}, where no worker of limner looks by itself",
                             repository),
                 fmt::format("Take it in with `limner volume setup --model {0}`, or name a folder "
                             "of its snapshots/ as the model.",
                             repository)});
    });
  }

  void in_models(const fs::directory_entry& entry) {
    const fs::path& path = entry.path();
    const std::string name = path.filename().string();
    if (path_of(path) == kRawFolder || is_debris(entry)) return;
    if (!entry.is_directory()) return model_file(path);
    if (fs::exists(path / "model_index.json")) return model_folder(path);
    if (name.starts_with("models--")) {
      out_.problem({Kind::kMisplaced, path_of(path),
                    "is the hub's cache, whose files hide below snapshots/",
                    "Bring the model with `limner volume setup --model OWNER/NAME`, or copy its "
                    "snapshot to models/NAME."});
    } else if (const ForeignFolder* folder = foreign(name)) {
      other_layout(path, *folder);
    } else if (fs::is_directory(path / "unet") || fs::is_directory(path / "vae")) {
      out_.problem({Kind::kHalfWritten, path_of(path),
                    "looks like a model and has no model_index.json, so it cannot be loaded",
                    "Remove it and bring it anew."});
    } else if (const std::size_t count = count_weights(path); count > 0) {
      out_.problem({Kind::kMisplaced, path_of(path),
                    fmt::format("holds {} file{} of weights one folder too deep: {}", count,
                                count == 1 ? "" : "s", fmt::format(kReadsHere, "models", "models")),
                    "Move them up into models/."});
    }
  }

  void other_layout(const fs::path& path, const ForeignFolder& folder) {
    const std::size_t count = count_weights(path);
    if (count == 0) return;
    const std::string holds = fmt::format(
        "holds {} file{} in the layout of another program: ", count, count == 1 ? "" : "s");
    if (folder.belongs != nullptr) {
      out_.problem({Kind::kMisplaced, path_of(path),
                    holds + fmt::format(kReadsHere, folder.belongs, folder.belongs),
                    fmt::format("Move them to {}/.", folder.belongs)});
    } else {
      out_.problem({Kind::kUnused, path_of(path),
                    holds + "limner takes whole checkpoints and diffusers folders, not their parts",
                    "Bring the whole model to models/, and remove these."});
    }
  }

  void misplaced(const std::string& path, const std::string& what, const std::string& belongs) {
    out_.problem({Kind::kMisplaced, path,
                  fmt::format("is {}, and a worker looks for those in {}/", what, belongs),
                  fmt::format("Move it: mv {0}/{1} {0}/{2}/", volume_.string(), path, belongs)});
  }

  void broken(const std::string& path, const Error& error) {
    const bool is_ours = error.code == ErrorCode::kInvalidModel;
    const bool cut = error.message.ends_with("the file is cut off");
    out_.problem({error.code == ErrorCode::kIo ? Kind::kUnreadable
                  : cut                        ? Kind::kHalfWritten
                  : is_ours                    ? Kind::kDamaged
                                               : Kind::kUnused,
                  path, "cannot be used: " + error.message,
                  is_ours ? "Remove it and bring it anew." : "Bring it as safetensors."});
  }

  bool refuse_pickle(const fs::path& path) {
    if (!weights::has_pickle_extension(path)) return false;
    out_.problem({Kind::kUnused, path_of(path),
                  "is of a form that can run code when it is loaded, which limner never does",
                  "Bring the same model as safetensors."});
    return true;
  }

  void unknown(const std::string& path) {
    if (manifest_.files.empty() || manifest_.files.contains(path)) return;
    out_.note({Kind::kUnused, path, "is not in limner-volume.json: nothing is known of its bytes",
               "`limner volume setup` takes it in."});
  }

  void model_file(const fs::path& path) {
    if (refuse_pickle(path) || !is_safetensors(path)) return;
    const std::string name = path_of(path);
    const auto kind = weights_kind(path);
    if (!kind.ok()) return broken(name, kind.error());
    if (*kind == WeightsKind::kAdapter || *kind == WeightsKind::kEmbedding)
      return misplaced(name, called(*kind), folder_for(*kind));
    const auto seen = weights::inspect(path, {.hashes = false, .values = false});
    if (!seen.ok()) return broken(name, seen.error());
    if (!seen->not_a_model.empty()) {
      out_.problem({Kind::kUnused, name, "is no model: " + seen->not_a_model,
                    "Put the whole checkpoint there instead."});
      return;
    }
    unknown(name);
  }

  void model_folder(const fs::path& path) {
    const std::string name = path_of(path);
    const auto of_it = out_.named.lower_bound(name + '/');
    if (of_it != out_.named.end() && of_it->starts_with(name + '/')) return;  // told already
    const auto seen = weights::inspect(path, {.hashes = false, .values = false});
    if (!seen.ok()) return broken(name, seen.error());
    if (seen->problems.empty()) return unknown(name + "/model_index.json");
    std::string message = "cannot be drawn with: " + seen->problems.front();
    if (seen->problems.size() > 1)
      message +=
          fmt::format(" (and {} more; see `limner model inspect`)", seen->problems.size() - 1);
    out_.problem({Kind::kDamaged, name, message, "Remove it and bring it anew."});
  }

  // loras/, embeddings/, controlnets/, which are read at any depth.
  void below(const std::string& folder, const fs::directory_entry& entry) {
    if (is_debris(entry)) return;
    if (entry.is_directory()) {
      if (entry.is_symlink()) return;  // nobody enters these
      each(entry.path(), [&](const fs::directory_entry& inner) { below(folder, inner); });
      return;
    }
    if (refuse_pickle(entry.path()) || !is_safetensors(entry.path())) return;
    const std::string name = path_of(entry.path());
    const auto kind = weights_kind(entry.path());
    if (!kind.ok()) return broken(name, kind.error());
    const std::string belongs = folder_for(*kind);
    if (*kind != WeightsKind::kOther && belongs != folder)
      return misplaced(name, called(*kind), belongs);
    if (*kind == WeightsKind::kOther && folder == "loras") {
      out_.problem({Kind::kUnused, name, "has none of an adapter's tensors",
                    "Bring an adapter, or remove it."});
      return;
    }
    unknown(name);
  }

  const fs::path& volume_;
  const VolumeManifest& manifest_;
  Findings& out_;
};

}  // namespace

void check_places(const CheckRequest& request, const VolumeManifest& manifest, Findings& out) {
  Places(request, manifest, out).run();
}

}  // namespace limner::runpod
