#include "contract/catalog.h"

#include <algorithm>

namespace limner::contract {
namespace {

template <typename Card>
const Card* named(const std::vector<Card>& cards, std::string_view name) {
  const auto found =
      std::find_if(cards.begin(), cards.end(), [&](const Card& card) { return card.name == name; });
  return found == cards.end() ? nullptr : &*found;
}

}  // namespace

const ModelCard* Catalog::model(std::string_view name) const {
  return named(models, name);
}

const AdapterCard* Catalog::adapter(std::string_view name) const {
  return named(adapters, name);
}

}  // namespace limner::contract
