// `limner template build`: everything that templates.json names, downloaded, converted, merged and
// checked.
#pragma once

#include "cli/console.h"
#include "cli/template_options.h"

namespace limner::cli {

int template_build(const TemplateBuildOptions& options, const Console& console);

}  // namespace limner::cli
