# One rank of three gives up while the others wait: its error is printed once, and the run ends with
# the code of a failed run. cmake -DMPIRUN=.. -DPROGRAM=.. -P comm_abort.cmake
execute_process(
  COMMAND ${MPIRUN} --allow-run-as-root --oversubscribe --bind-to none --mca mpi_yield_when_idle 1
          -np 3 ${PROGRAM} abort
  RESULT_VARIABLE code ERROR_VARIABLE errors)
if(NOT code EQUAL 6)
  message(FATAL_ERROR "exit code ${code}, expected 6:\n${errors}")
endif()
string(REGEX MATCHALL "rank 0: error: op 17: gave up on purpose" said "${errors}")
list(LENGTH said times)
if(NOT times EQUAL 1)
  message(FATAL_ERROR "the error was printed ${times} times:\n${errors}")
endif()
