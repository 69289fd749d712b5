// The subcommands of `limner model` that have files of their own.
#pragma once

#include <optional>

#include "cli/commands.h"
#include "engine/weights/dtype.h"

namespace limner::cli {

void add_convert(CLI::App& parent, Context& context);
void add_merge(CLI::App& parent, Context& context);
void add_pull(CLI::App& parent, Context& context);
void add_verify(CLI::App& parent, Context& context);

// --dtype of what is written.
CLI::Option* add_written_dtype(CLI::App& command, std::optional<engine::weights::DType>& dtype);

}  // namespace limner::cli
