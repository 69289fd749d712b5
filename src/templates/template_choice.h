// A template named by a request: the model it stands for and its defaults.
#pragma once

#include "base/error.h"
#include "contract/catalog.h"
#include "contract/job_request.h"
#include "platform/templates/templates.h"

namespace limner::templates {

// Fills in what `request` (whose template_name is set) leaves open: the built model, or, while it
// is not built, its checkpoint with the adapters at run time; sizes, steps, sampler and prompts.
// Errors: kNotFound, for a template that there is not or whose model is not there. `templates` may
// be nullptr: the service has none.
Result<void> choose_template(contract::JobRequest& request, const platform::Templates* templates,
                             const contract::Catalog& catalog);

}  // namespace limner::templates
