// What `limner runpod` is told.
#pragma once

#include <cstdint>
#include <string>

#include "cli/config_options.h"

namespace limner::cli {

struct RunpodOptions {
  ConfigOptions config{};
  std::string test_input{};  // a file, or the JSON itself; "": the platform's queue
  bool refresh_worker = false;
  bool serve_api = false;  // an endpoint at home, with this worker
  std::string api_host = "localhost";
  std::uint16_t api_port = 8000;     // 0: one that is free
  std::int64_t api_concurrency = 0;  // 0: the setting `workers`
  bool load_balancing = false;       // HTTP on $PORT in place of the queue
};

}  // namespace limner::cli
