// A setting's value as text, in and out.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "platform/config/settings.h"

namespace limner::platform {

// A value as somebody wrote it: a single text, or the texts of a list.
using Written = std::vector<std::string>;

// How a value looks in limner.toml, for messages: "a whole number", "a list of texts", ...
std::string wanted(const Setting& setting);
bool is_list(const Setting& setting);

// From a variable or an option: lists are separated by commas, lists of folders by colons; yes and
// no are on, off, true, false, 1, 0.
Written split(const Setting& setting, std::string_view text);

// Sets the field. Sizes are bytes, or numbers with KiB, MiB, GiB or TiB. Throws Failure
// (kInvalidArgument) with what was wanted and what came, without the setting's name.
void store(const Setting& setting, const Written& value, ServiceConfig& config);

// As limner.toml has it: 8420, "127.0.0.1", ["a", "b"], "32 MiB". Secrets are "********", or ""
// where not set.
std::string shown(const Setting& setting, ServiceConfig& config);

// A text in TOML's quotes.
std::string toml_text(std::string_view text);

}  // namespace limner::platform
