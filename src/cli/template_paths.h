// Templates on the command line: where their file is, and what choosing one does to a request.
#pragma once

#include <filesystem>
#include <string>

#include "base/error.h"
#include "cli/generate_options.h"
#include "platform/templates/templates.h"

namespace limner::cli {

// `given`, else $LIMNER_TEMPLATES, else ./templates.json.
std::filesystem::path templates_file(const std::string& given);

// Fills in what `options` leaves open: the template's model, its adapters, its defaults. The built
// model is taken from $LIMNER_VOLUME or the model folders; without one, the checkpoint itself with
// the adapters at run time. `said` gets a line on where the model came from. Fails with kNotFound,
// saying how to build the template, when neither is there.
Result<void> apply_template(GenerateOptions& options, std::string& said);

}  // namespace limner::cli
