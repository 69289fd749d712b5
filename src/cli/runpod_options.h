// What `limner runpod` is told.
#pragma once

#include <string>

#include "cli/config_options.h"

namespace limner::cli {

struct RunpodOptions {
  ConfigOptions config{};
  std::string test_input{};  // a file, or the JSON itself; "": the platform's queue
  bool refresh_worker = false;
};

}  // namespace limner::cli
