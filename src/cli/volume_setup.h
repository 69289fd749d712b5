// A folder filled with everything that a worker's volume needs: for `limner volume setup`.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "cli/console.h"

namespace limner::cli {

struct VolumeSetupOptions {
  std::filesystem::path volume = "volume";
  std::vector<std::string> models{}, loras{};  // as `model pull` takes them; URL#sha256=HEX
  std::string templates{};                     // a file; "": none
  std::string variant{};                       // of repositories
  bool convert = false;                        // single files of models to folders in float16
};

// Downloads, converts and builds what is not there yet, takes in what lies in the folder, reads
// every byte once more, and writes limner-volume.json last. Run again after an interruption it
// goes on; two runs at once are kept apart by a lock. The exit code.
int volume_setup(const VolumeSetupOptions& options, const Console& console);

}  // namespace limner::cli
