// As much XML as S3's answers need: elements without regard to attributes or depth, text with its
// entities.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace limner::delivery {

// What lies inside each <name>...</name>, in order; elements must not hold themselves.
std::vector<std::string_view> xml_elements(std::string_view xml, std::string_view name);
// The first one's text; "" when there is none.
std::string xml_text(std::string_view xml, std::string_view name);

}  // namespace limner::delivery
