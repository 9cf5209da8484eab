# Writes a C++ source that holds every analysis as text, so that the binary needs no files.
# Called as: cmake -DOUT=file.cpp -DFILES=a.sql,b.sql -P embed.cmake
string(REPLACE "," ";" FILES "${FILES}")
set(rows "")
foreach(file IN LISTS FILES)
  get_filename_component(name ${file} NAME_WE)
  file(READ ${file} text)
  string(APPEND rows "    {\"${name}\", R\"analysis(${text})analysis\"},\n")
endforeach()
file(WRITE ${OUT} "// Made by tracer/embed.cmake from tracer/analyses/*.sql.
#include \"tracer/analysis_files.h\"

namespace orrery {

const std::vector<AnalysisFile>& analysis_files() {
  static const std::vector<AnalysisFile> files = {
${rows}  };
  return files;
}

}  // namespace orrery
")
