# Writes a C++ source that holds text files as constants, so that the binary needs no files.
# Called as: cmake -DOUT=file.cpp -DFILES=a.sql,b.sql -DHEADER=folder/rows.h -DNAMESPACE=orrery
#                  -DROW=Row -DFUNCTION=rows -P embed.cmake
# The header declares struct ROW {std::string_view name, text;} and const std::vector<ROW>&
# FUNCTION(); the name of a file is its name without its ending.
string(REPLACE "," ";" FILES "${FILES}")
set(rows "")
foreach(file IN LISTS FILES)
  get_filename_component(name ${file} NAME_WE)
  file(READ ${file} text)
  string(APPEND rows "    {\"${name}\", R\"embedded(${text})embedded\"},\n")
endforeach()
file(WRITE ${OUT} "// Made by cmake/embed.cmake.
#include \"${HEADER}\"

namespace ${NAMESPACE} {

const std::vector<${ROW}>& ${FUNCTION}() {
  static const std::vector<${ROW}> rows = {
${rows}  };
  return rows;
}

}  // namespace ${NAMESPACE}
")
