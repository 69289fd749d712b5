// The command line of limner.
#pragma once

namespace limner::cli {

// Parses, runs one command, returns the exit code (see SURFACE: 0, 1, 2, 3, 130). Throws nothing.
int run(int argc, const char* const* argv);

}  // namespace limner::cli
