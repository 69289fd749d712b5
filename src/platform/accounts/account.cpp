#include "platform/accounts/account.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/quote.h"
#include "base/suggest.h"

namespace limner::platform {
namespace {

struct NamedScope {
  const char* name;
  bool Scopes::* member;
};

constexpr std::array<NamedScope, 3> kScopes = {{
    {"generate", &Scopes::generate},
    {"read", &Scopes::read},
    {"admin", &Scopes::admin},
}};

bool fits_a_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-';
}

}  // namespace

std::string to_string(Scopes scopes) {
  std::string text;
  for (const NamedScope& scope : kScopes) {
    if (!(scopes.*scope.member)) continue;
    if (!text.empty()) text += ',';
    text += scope.name;
  }
  return text;
}

Result<Scopes> parse_scopes(std::string_view text) {
  Scopes scopes;
  std::string_view rest = text;
  for (bool more = true; more;) {
    const auto comma = rest.find(',');
    const std::string_view name = rest.substr(0, comma);
    const auto known = std::find_if(kScopes.begin(), kScopes.end(),
                                    [&](const NamedScope& scope) { return name == scope.name; });
    if (known == kScopes.end()) {
      const std::vector<std::string> names = {"generate", "read", "admin"};
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("[scopes] want generate, read or admin, separated by commas; got "
                               "{}{}",
                               quote(name), did_you_mean(name, names))};
    }
    scopes.*known->member = true;
    more = comma != std::string_view::npos;
    if (more) rest.remove_prefix(comma + 1);
  }
  return scopes;
}

Result<void> check_account_name(std::string_view name) {
  if (!name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), fits_a_name)) {
    return {};
  }
  return Error{
      ErrorCode::kInvalidArgument,
      fmt::format("[account] a name has 1 to 64 letters, digits, '_' or '-'; got {}", quote(name))};
}

}  // namespace limner::platform
